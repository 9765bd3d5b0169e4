"""The four transformer families, written for inference, each readable top to bottom."""
