"""Subnets taken out of a supernet, and the files of their bundles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from nas.architecture import Architecture
from nas.errors import NotFoundError
from nas.job import JobKind
from nas.store.artifacts import Artifact
from nas.store.ids import Prefix, new_id
from nas.store.resources import Cursor, WithJob, create_resource, get_resource, get_row, hold, list_resources
from nas.store.tables import ArtifactRow, SubnetRow, SupernetRow, VerificationRow
from nas.verification import Training


@dataclass(frozen=True, kw_only=True)
class OwnWeights:
    """The training of a verification that gave a network weights of its own."""

    verification_id: str
    run_number: int
    training: Training
    learning_rate: float
    epochs: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """What stays known of it when the verification is deleted."""
        return {
            "training": self.training.value,
            "learning_rate": self.learning_rate,
            "epochs": self.epochs,
            "seed": self.seed,
        }


def create(
    session: Session,
    *,
    display_name: str,
    labels: dict[str, str],
    supernet_id: str,
    architecture: Architecture,
    costs: Mapping[str, int],
    spec: dict[str, Any],
    own_weights: OwnWeights | None = None,
) -> WithJob[SubnetRow]:
    """A subnet to be specialised; its job waits for the supernet's training.

    Its weights are those that it inherits, unless a verification's training gives it its own.
    """
    training = hold(session, SupernetRow, supernet_id, noun="supernet").job
    row = SubnetRow(
        id=new_id(Prefix.SUBNET),
        display_name=display_name,
        labels=labels,
        supernet_id=supernet_id,
        architecture_key=architecture.key,
        architecture=architecture.to_json(),
        macs=int(costs["macs"]),
        params=int(costs["params"]),
        size_bytes=int(costs["size_bytes"]),
        peak_activation_bytes=int(costs["peak_activation_bytes"]),
    )
    if own_weights is not None:
        hold(session, VerificationRow, own_weights.verification_id, noun="verification")
        row.verification_id = own_weights.verification_id
        row.run_number = own_weights.run_number
        row.own_training = own_weights.to_json()
    return create_resource(session, row, kind=JobKind.SPECIALISE, spec=spec, depends_on=training.id)


def get(session: Session, subnet_id: str) -> WithJob[SubnetRow]:
    """The subnet and its job."""
    return get_resource(session, SubnetRow, subnet_id, noun="subnet")


def list(
    session: Session, *, page_size: int, after: Cursor | None = None, supernet_id: str | None = None
) -> Sequence[WithJob[SubnetRow]]:
    """A page of subnets, newest first; of one supernet where given."""
    where = [] if supernet_id is None else [SubnetRow.supernet_id == supernet_id]
    return list_resources(session, SubnetRow, page_size=page_size, after=after, where=where)


def publish(
    session: Session,
    subnet_id: str,
    *,
    evaluation_val_id: int,
    evaluation_test_id: int | None,
    artifacts: Sequence[Artifact],
) -> None:
    """The bundle is checked and complete: its files and figures appear together."""
    row = get_row(session, SubnetRow, subnet_id, noun="subnet")
    for artifact in artifacts:
        _record_artifact(session, subnet_id, artifact)
    row.evaluation_val_id = evaluation_val_id
    row.evaluation_test_id = evaluation_test_id
    row.published_at = session.execute(select(func.clock_timestamp())).scalar_one()
    session.flush()


def artifacts(session: Session, subnet_id: str) -> Sequence[Artifact]:
    """The bundle's files by name; none before it is published."""
    query = select(ArtifactRow).where(ArtifactRow.subnet_id == subnet_id).order_by(ArtifactRow.name)
    return [_as_artifact(row) for row in session.scalars(query)]


def artifact(session: Session, subnet_id: str, name: str) -> Artifact:
    """One file of the bundle."""
    row = session.get(ArtifactRow, (subnet_id, name))
    if row is None:
        raise NotFoundError(f"subnet {subnet_id!r} has no artefact {name!r}")
    return _as_artifact(row)


def published_uris(session: Session, subnet_id: str) -> set[str]:
    """Where the bundle's bytes lie."""
    return set(session.scalars(select(ArtifactRow.uri).where(ArtifactRow.subnet_id == subnet_id)))


def _record_artifact(session: Session, subnet_id: str, artifact: Artifact) -> None:
    values = asdict(artifact)
    statement = insert(ArtifactRow).values(subnet_id=subnet_id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["subnet_id", "name"], set_=values))


def _as_artifact(row: ArtifactRow) -> Artifact:
    return Artifact(
        name=row.name,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        media_type=row.media_type,
        uri=row.uri,
    )
