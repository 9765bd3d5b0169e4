"""How good results are, and images beside each other."""
