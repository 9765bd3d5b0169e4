"""Tiled inference: where tiles are, how they are blended, how they run."""
