"""Elastic layers: shared weights that a LayerSpec slices. A slice is a view; nothing is copied or kept."""
