"""The figures of a network being published: one number wherever they are shown, and test touched once.

The card must say what the downloaded module does, and the subnet's row what the card says. Where the
search has measured the network already, that evaluation is the row, if the module classifies every
image alike. It may not: sums round otherwise on another processor or number of threads, and an image
that lies between two classes falls to the other side. Up to `allowed_differences` images the module is
published with its own figures, recorded as another evaluation, which is named by its own batch-norm
statistics; beyond, it is another network than the one that was chosen, and is not published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nas.errors import ArtifactError
from nas.trial import Evaluation, Split

Measure = Callable[[Split], Evaluation]
"""Measures the module to be published."""
FindRecorded = Callable[[Split, str], Evaluation | None]
"""What is recorded of the network on a split under the name of a calibration."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The module classifies some val images otherwise than the evaluation that was recorded first."""

    num_images: int
    num_differing: int
    num_allowed: int
    num_correct_recorded: int
    num_correct_published: int


@dataclass(frozen=True, kw_only=True)
class PublishedFigures:
    """What card and row are made of."""

    evaluations: Mapping[Split, Evaluation]
    is_test_reused: bool
    """Recorded when the network was published before, and not measured again."""
    difference: Difference | None
    """None where the figures are those that the search saw."""

    def to_event(self) -> dict[str, Any]:
        """For those who watch the job."""
        return {
            "num_correct": {split.value: e.num_correct for split, e in self.evaluations.items()},
            "num_images": {split.value: e.num_images for split, e in self.evaluations.items()},
            "is_test_reused": self.is_test_reused,
            "difference": None if self.difference is None else asdict(self.difference),
        }


def settle_figures(measure: Measure, find_recorded: FindRecorded, *, statistics_id: str) -> PublishedFigures:
    """The figures to publish. Raises ArtifactError where the module is not the network that was recorded."""
    val = measure(Split.VAL)
    recorded = find_recorded(Split.VAL, val.calibration)
    difference = None if recorded is None else compare(val, recorded)
    if difference is not None:
        val = replace(val, calibration=f"{val.calibration},statistics={statistics_id}")
    recorded_test = find_recorded(Split.TEST, val.calibration)
    test = recorded_test or replace(measure(Split.TEST), calibration=val.calibration)
    return PublishedFigures(
        evaluations={Split.VAL: val, Split.TEST: test},
        is_test_reused=recorded_test is not None,
        difference=difference,
    )


def allowed_differences(num_images: int) -> int:
    """How many images may be classified otherwise by what counts as the same network: 0.1 %, at least 1."""
    return max(1, num_images // 1000)


def compare(published: Evaluation, recorded: Evaluation) -> Difference | None:
    """How the two classify the same images; None where alike, ArtifactError where too differently."""
    num_differing = count_differing(published, recorded)
    if not num_differing:
        return None
    difference = Difference(
        num_images=recorded.num_images,
        num_differing=num_differing,
        num_allowed=allowed_differences(recorded.num_images),
        num_correct_recorded=recorded.num_correct,
        num_correct_published=published.num_correct,
    )
    if num_differing > difference.num_allowed:
        raise ArtifactError(
            f"the extracted network classifies {num_differing} of {recorded.num_images} {recorded.split} "
            f"images otherwise than the evaluation that is recorded; at most {difference.num_allowed} may "
            "differ by rounding: specialise with the versions that the search ran on, or train anew"
        )
    return difference


def count_differing(one: Evaluation, other: Evaluation) -> int:
    """How many images one classifies rightly and the other does not."""
    bits = [np.frombuffer(evaluation.correct_bitmap, dtype=np.uint8) for evaluation in (one, other)]
    return int(np.bitwise_count(np.bitwise_xor(*bits)).sum())
