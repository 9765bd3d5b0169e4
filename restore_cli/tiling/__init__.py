"""Tiled inference: the plan, the blend, the engine."""
