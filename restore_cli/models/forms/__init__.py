"""Inference forms of the published modules, in files of the same names."""
