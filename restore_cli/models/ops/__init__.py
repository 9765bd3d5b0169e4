"""The operators of the networks, one per module: a reference of a few lines, and the backends that replace it."""
