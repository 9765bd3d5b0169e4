"""The size of an image up to which it is read, unless `max_pixels` says otherwise."""

from __future__ import annotations

__all__ = ["MAX_PIXELS"]

MAX_PIXELS = 2_000_000_000
