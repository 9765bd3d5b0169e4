"""The default limit of the size of an image."""

from __future__ import annotations

__all__ = ["MAX_PIXELS"]

MAX_PIXELS = 2_000_000_000
"""Larger images are refused, unless `max_pixels` has another value."""
