"""What may look at a search before anything is measured for it."""

from enum import StrEnum


class PrefilterName(StrEnum):
    """A pre-filter of searches."""

    NONE = "none"
    DEEPMAD = "deepmad"
