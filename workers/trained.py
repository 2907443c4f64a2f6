"""A supernet whose weights are published: what searching and specialising start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from nas.architecture import Architecture
from nas.costs import costs
from nas.errors import ConflictError
from nas.space import SearchSpace
from nas.store import datasets
from nas.store.evaluation_columns import packed_code
from nas.store.evaluations import EvaluationProtocol
from nas.store.tables import SupernetRow
from nas.store.verifications import RunWithEvaluations
from nas.trial import Split
from search_spaces import SPACES
from workers.weights import SupernetDescription


@dataclass(frozen=True, kw_only=True)
class TrainedSupernet:
    """A supernet that is ready to be measured."""

    row: SupernetRow
    checkpoint: str
    weights_uri: str
    calibration: str
    num_val: int
    description: SupernetDescription

    @property
    def space(self) -> SearchSpace:
        """The space whose networks it holds."""
        return SPACES[self.description.search_space]

    @property
    def protocol(self) -> EvaluationProtocol:
        """How a search measures: on all of val."""
        return EvaluationProtocol(
            supernet_id=self.row.id,
            checkpoint=self.checkpoint,
            split=Split.VAL,
            num_images=self.num_val,
            calibration=self.calibration,
        )

    def costs(self, architecture: Architecture) -> dict[str, int]:
        """What the network costs with this data set's classes and channels, by name."""
        return costs(
            self.space,
            architecture,
            num_classes=self.description.num_classes,
            in_channels=self.description.in_channels,
        )

    def code(self, architecture: Architecture) -> bytes:
        """The network's codes, as its evaluation keeps them."""
        return packed_code(self.space, architecture)


def with_own_weights(
    trained: TrainedSupernet, found: RunWithEvaluations, network: Mapping[str, Any]
) -> TrainedSupernet:
    """The network alone, with the weights of the verification's training in place of the supernet's.

    ConflictError where these are not kept.
    """
    if found.val is None or found.run.weights_uri is None:
        raise ConflictError(
            f"training {found.run.number} of verification {found.run.verification_id} has left no weights; "
            "only those of the rate that was best on val are kept"
        )
    return replace(
        trained,
        checkpoint=found.val.checkpoint,
        weights_uri=found.run.weights_uri,
        description=replace(trained.description, network=dict(network)),
    )


def describe_supernet(session: Session, row: SupernetRow) -> TrainedSupernet:
    """The supernet with what its data set says about it; ConflictError unless it is trained."""
    if row.checkpoint is None or row.weights_uri is None or row.calibration is None:
        raise ConflictError(f"supernet {row.id} is not trained yet; wait for its job to succeed")
    contents = datasets.get(session, row.dataset_id).row
    if contents.num_classes is None or contents.in_channels is None or contents.num_val is None:
        raise ConflictError(f"data set {row.dataset_id} is not imported yet; wait for its job to succeed")
    return TrainedSupernet(
        row=row,
        checkpoint=row.checkpoint,
        weights_uri=row.weights_uri,
        calibration=row.calibration,
        num_val=contents.num_val,
        description=SupernetDescription(
            search_space=row.search_space,
            num_classes=contents.num_classes,
            in_channels=contents.in_channels,
            kernel_transform=bool(row.recipe["kernel_transform"]),
        ),
    )
