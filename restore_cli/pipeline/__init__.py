"""Restores one file into another."""
