"""Mistakes that people make, with what they are told: the corpus and its tests."""
