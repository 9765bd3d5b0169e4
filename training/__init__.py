"""How the bundled checkpoints were made: `python -m training.train NAME`, then `python -m training.export NAME`."""
