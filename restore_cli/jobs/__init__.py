"""Batches of files: planning, executors, manifest."""
