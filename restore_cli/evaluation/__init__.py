"""Measures the quality of results, and draws comparisons."""
