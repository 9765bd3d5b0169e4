"""The catalogue of checkpoints, and their verified files on disk."""
