"""Measurements behind docs/results.md: `python -m bench NAME`, or `make bench ARGS=NAME`."""
