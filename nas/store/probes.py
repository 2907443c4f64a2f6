"""Probes of supernets in training: their networks, and what each got right after every epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from nas import plateau
from nas.probes import EpochProbes, ProbeResult, ProbeRole
from nas.store.resources import get_row
from nas.store.tables import ProbeNetworkRow, ProbeResultRow, SupernetRow


@dataclass(frozen=True, kw_only=True)
class ProbeCurves:
    """Everything that a supernet's probes have told."""

    networks: Sequence[ProbeNetworkRow]
    results: Mapping[int, Sequence[ProbeResult]]
    """By epoch, in the order of the networks' numbers."""


def record(session: Session, supernet_id: str, probes: EpochProbes) -> None:
    """Add an epoch; one trained again after a resume or a rollback replaces its own."""
    networks = [
        {
            "supernet_id": supernet_id,
            "number": network.number,
            "role": network.role.value,
            "architecture_key": network.architecture.key,
            "architecture": network.architecture.to_json(),
            "macs": network.macs,
            "params": network.params,
            "size_bytes": network.size_bytes,
            "peak_activation_bytes": network.peak_activation_bytes,
        }
        for network in probes.networks
    ]
    # Always the same in one run.
    session.execute(insert(ProbeNetworkRow).values(networks).on_conflict_do_nothing())
    statement = insert(ProbeResultRow).values(
        [
            {
                "supernet_id": supernet_id,
                "epoch": probes.epoch,
                "number": result.number,
                "num_correct": result.num_correct,
                "num_images": result.num_images,
                "duration_s": result.duration_s,
            }
            for result in probes.results
        ]
    )
    replaced = {name: statement.excluded[name] for name in ("num_correct", "num_images", "duration_s")}
    keys = ["supernet_id", "epoch", "number"]
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=replaced))


def note_if_flat(session: Session, supernet_id: str, epoch: int) -> bool:
    """Whether the supernet's probes are flat after this epoch and never were before; the row then says so."""
    row = get_row(session, SupernetRow, supernet_id, noun="supernet")
    if row.probes_flat_at_epoch is not None:
        return False
    first = epoch - plateau.WINDOW + 1
    query = select(ProbeResultRow).where(
        ProbeResultRow.supernet_id == supernet_id, ProbeResultRow.epoch.between(first, epoch)
    )
    found = session.scalars(query.order_by(ProbeResultRow.number, ProbeResultRow.epoch)).all()
    curves: dict[int, list[float]] = {}
    for result in found:
        curves.setdefault(result.number, []).append(result.num_correct / result.num_images)
    # A run of before there were probes goes on with the epochs that have them.
    if any(len(curve) < plateau.WINDOW for curve in curves.values()) or not plateau.are_flat(
        [*curves.values()]
    ):
        return False
    row.probes_flat_at_epoch = epoch
    session.flush()
    return True


def mean_duration_of_ends(session: Session, supernet_id: str) -> float | None:
    """Seconds that one of the largest and the smallest network took on all of val, over all epochs."""
    query = select(func.avg(ProbeResultRow.duration_s)).join(
        ProbeNetworkRow,
        (ProbeNetworkRow.supernet_id == ProbeResultRow.supernet_id)
        & (ProbeNetworkRow.number == ProbeResultRow.number),
    )
    ends = ProbeNetworkRow.role.in_([ProbeRole.LARGEST, ProbeRole.SMALLEST])
    return session.scalar(query.where(ProbeResultRow.supernet_id == supernet_id, ends))


def curves(session: Session, supernet_id: str) -> ProbeCurves:
    """Every epoch's, in order; of a supernet trained before there were probes none."""
    networks = select(ProbeNetworkRow).where(ProbeNetworkRow.supernet_id == supernet_id)
    query = select(ProbeResultRow).where(ProbeResultRow.supernet_id == supernet_id)
    results: dict[int, list[ProbeResult]] = {}
    for row in session.scalars(query.order_by(ProbeResultRow.epoch, ProbeResultRow.number)):
        result = ProbeResult(
            number=row.number,
            num_correct=row.num_correct,
            num_images=row.num_images,
            duration_s=row.duration_s,
        )
        results.setdefault(row.epoch, []).append(result)
    ordered = session.scalars(networks.order_by(ProbeNetworkRow.number)).all()
    return ProbeCurves(networks=ordered, results=results)
