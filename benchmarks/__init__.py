"""Measurements that are run by hand; `make results` fills docs/results.md."""
