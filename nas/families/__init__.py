"""Families of search spaces: how decisions become layers. A data file makes a space of a family."""
