"""The report on a data set: what an import found in the images, and what a person should know of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supernet.data.decoded import CanonicalOrder
from supernet.data.listing import GivenSplit
from supernet.data.pool import is_contradicted, picture_numbers
from supernet.data.splits import DataSplits
from supernet.data.survey import MAX_LISTED_UNREADABLE, Survey

FEW_IMAGES = 20
"""Of one class in training: with fewer, what is learned of it is mostly chance."""
STRONG_IMBALANCE = 10.0
"""Images of the largest class for one of the smallest."""
_NUM_SIZES = 10
_NUM_NAMED = 5


def dataset_report(survey: Survey, order: CanonicalOrder | None, splits: DataSplits | None) -> dict[str, Any]:
    """The report as JSON values; without `order` and `splits` that of a source that was refused."""
    report: dict[str, Any] = {
        "num_images": survey.num_readable,
        "given_splits": {split.value: int(counts.sum()) for split, counts in survey.class_counts.items()},
        "classes": _classes(survey, splits),
        "imbalance": _imbalance(_totals(survey)),
        "stored": _stored(survey),
        "sizes": _sizes(survey),
        "modes": dict(survey.modes.most_common()),
        "duplicates": None if order is None else _duplicates(order),
        "unreadable": {
            "count": len(survey.unreadable),
            "listed_at_most": MAX_LISTED_UNREADABLE,
            "images": [{"where": each.where, "reason": each.reason} for each in survey.unreadable.listed],
        },
    }
    return {**report, "warnings": list(_warnings(report))}


def _classes(survey: Survey, splits: DataSplits | None) -> list[dict[str, Any]]:
    """Images of each class in each split: the final ones, or those of the source where none were made."""
    if splits is None:
        counts = {split.value: given for split, given in survey.class_counts.items()}
    else:
        counts = {split.value: getattr(splits, split.value).class_counts for split in GivenSplit}
    return [
        {"name": name, "images": {split: int(given[label]) for split, given in counts.items()}}
        for label, name in enumerate(survey.class_names)
    ]


def _totals(survey: Survey) -> NDArray[np.int64]:
    return np.sum([*survey.class_counts.values()], axis=0)


def _imbalance(totals: NDArray[np.int64]) -> float | None:
    """Images of the largest class for one of the smallest; None where a class has none."""
    return round(float(totals.max() / totals.min()), 3) if totals.size and totals.min() else None


def _stored(survey: Survey) -> dict[str, Any] | None:
    if not survey.rule:
        return None
    return {**survey.shape._asdict(), "rule": survey.rule}


def _sizes(survey: Survey) -> dict[str, Any] | None:
    if not survey.sizes:
        return None
    widths, heights = zip(*survey.sizes, strict=True)
    return {
        "num_distinct": len(survey.sizes),
        "min_width": min(widths),
        "max_width": max(widths),
        "min_height": min(heights),
        "max_height": max(heights),
        "most_common": [
            {"width": width, "height": height, "images": count}
            for (width, height), count in survey.sizes.most_common(_NUM_SIZES)
        ],
    }


def _duplicates(order: CanonicalOrder) -> dict[str, Any]:
    """Images with the very same stored pixels: within each given split, across them, and at odds in label."""
    held = {split: order.digests[order.bounds(split)] for split in order.counts}
    distinct = {split: {digest.tobytes() for digest in digests} for split, digests in held.items()}
    across = {
        f"{one}_{other}": sum(digest.tobytes() in distinct[one] for digest in held[other])
        for one, other in combinations(order.counts, 2)
    }
    return {
        "within": {split.value: len(digests) - len(distinct[split]) for split, digests in held.items()},
        "across": across,
        "contradictory": _num_contradictory(order),
    }


def _num_contradictory(order: CanonicalOrder) -> int:
    """Images of which a copy, in the same split, has another label."""
    total = 0
    for split in order.counts:
        where = order.bounds(split)
        total += int(is_contradicted(picture_numbers(order.digests[where]), order.labels[where]).sum())
    return total


def _warnings(report: dict[str, Any]) -> Iterator[str]:
    few = {each["name"]: each["images"].get("train", 0) for each in report["classes"]}
    few = {name: count for name, count in few.items() if count < FEW_IMAGES}
    if few:
        named = ", ".join(f"{name!r} ({count})" for name, count in [*few.items()][:_NUM_NAMED])
        more = f" and {len(few) - _NUM_NAMED} more" if len(few) > _NUM_NAMED else ""
        yield (
            f"Classes with fewer than {FEW_IMAGES} training images, hard to learn and to measure: "
            f"{named}{more}."
        )
    if report["imbalance"] is not None and report["imbalance"] >= STRONG_IMBALANCE:
        yield (
            f"The largest class has {report['imbalance']:.1f} times as many images as the smallest; accuracy "
            "over all images says little about the small classes, so look at the accuracy of each class."
        )
    yield from _duplicate_warnings(report["duplicates"])
    if report["unreadable"]["count"]:
        yield f"{report['unreadable']['count']} images could not be read."
    if report["sizes"] is not None and report["sizes"]["num_distinct"] > 1:
        yield f"The images differ in size; stored as {report['stored']['rule']}."


def _duplicate_warnings(duplicates: dict[str, Any] | None) -> Iterator[str]:
    if duplicates is None:
        return
    for pair, count in duplicates["across"].items():
        one, other = pair.split("_")
        if count:
            yield (
                f"{count} of the {other} images are also among the {one} images, pixel for pixel: "
                f"figures on {other} are too good by that much."
            )
    if repeated := sum(duplicates["within"].values()):
        one_or_more = "image repeats" if repeated == 1 else "images repeat"
        yield f"{repeated} {one_or_more} another of the same split; in drawn splits copies stay together."
    if duplicates["contradictory"]:
        yield (
            f"{duplicates['contradictory']} images have a copy with another label; "
            "where splits are drawn, they stay in train."
        )
