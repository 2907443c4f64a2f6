"""Warm start: which weights a training may begin from, decided without looking at one of them."""

from __future__ import annotations

from nas.errors import InvalidArchitectureError
from nas.fields import InvalidFieldError
from nas.space import SearchSpace
from nas.weights_file import WeightsDescription

ADAPTABLE_CHANNELS = {1, 3}
"""Grey and colour: the first layer's weights are carried from one to the other."""


def check_warm_start(
    source: WeightsDescription, space: SearchSpace, *, in_channels: int | None, kernel_transform: bool
) -> None:
    """Raise InvalidFieldError where weights of `source` cannot begin a training in `space`.

    `in_channels` are those of the images, None while nobody knows them. Classes may differ: the
    classifier begins anew then. The error's field is that of the request that would have to change.
    """
    _check_space(source, space)
    _check_transforms(source, kernel_transform=kernel_transform)
    _check_channels(source, in_channels)


def _check_space(source: WeightsDescription, space: SearchSpace) -> None:
    if source.search_space != space.name:
        raise InvalidFieldError(
            f"the weights are of search space '{source.search_space}', the training is asked for in "
            f"'{space.name}'; ask for '{source.search_space}', or start from weights of '{space.name}'",
            field="search_space",
            value=space.name,
            allowed=source.search_space,
        )
    if source.space_fingerprint not in (None, space.fingerprint):
        raise InvalidFieldError(
            f"the weights are of another version of search space '{space.name}', whose decisions differ from "
            "this release's; start from weights that this release trained, or leave warm_start out",
            field="search_space",
            value=space.name,
            allowed=f"weights of the version {space.fingerprint[:12]} of '{space.name}'",
        )
    if source.architecture is not None:
        try:
            space.parse(dict(source.architecture))
        except InvalidArchitectureError as error:
            raise InvalidFieldError(
                f"the bundle's network is none of search space '{space.name}' ({error}); start from a bundle "
                "that this release made, or leave warm_start out",
                field="search_space",
                value=space.name,
                allowed=f"a network of '{space.name}'",
            ) from error


def _check_transforms(source: WeightsDescription, *, kernel_transform: bool) -> None:
    if source.kernel_transform and not kernel_transform:
        raise InvalidFieldError(
            "the weights hold learned kernel transforms, which recipe.kernel_transform false would drop, and "
            "with them what every smaller kernel has learned; set recipe.kernel_transform to true",
            field="recipe.kernel_transform",
            value=kernel_transform,
            allowed="true",
        )


def _check_channels(source: WeightsDescription, in_channels: int | None) -> None:
    if in_channels is None or in_channels == source.in_channels:
        return
    if {in_channels, source.in_channels} <= ADAPTABLE_CHANNELS:
        return
    raise InvalidFieldError(
        f"the weights read images of {source.in_channels} channels, the data set's have {in_channels}; only "
        "1 (grey) and 3 (colour) are carried over to each other; start from weights for as many channels",
        field="dataset_id",
        value=in_channels,
        allowed=f"images of {source.in_channels} channels",
    )
