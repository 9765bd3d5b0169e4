"""Restore images with SwinIR, HAT, Restormer and EMT.

As a library: `model = restore_cli.load("hat-x4")`, then `restore_cli.restore(model, image)`.
"""

from restore_cli.api import list_models, load, restore, restore_file, restore_stream

__all__ = ["list_models", "load", "restore", "restore_file", "restore_stream"]
