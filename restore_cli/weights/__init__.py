"""Which checkpoints there are, and how they come to this disk."""
