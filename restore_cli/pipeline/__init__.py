"""One file through a model into another."""
