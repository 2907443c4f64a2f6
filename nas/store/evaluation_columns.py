"""Evaluations of one supernet as columns, read a million at a time and then only what came since.

What a device's latency is predicted from is each network's codes. One that another evaluation supersedes may
be faster on a device all the same, so answers by latency are found among all of them, in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from psycopg import Connection
from sqlalchemy import text
from sqlalchemy.orm import Session

from nas.architecture import Architecture
from nas.errors import InvalidArchitectureError
from nas.space import SearchSpace
from nas.store.evaluations import EvaluationColumns, EvaluationProtocol

Codes = npt.NDArray[np.uint8]
Figures = dict[str, npt.NDArray[np.int64]]

_FIGURES = ("id", "num_correct", "macs", "params", "size_bytes", "peak_activation_bytes", "recorded_in")
_IS_MEASURED_BY = """supernet_id = %(supernet_id)s AND checkpoint = %(checkpoint)s AND split = %(split)s
    AND num_images = %(num_images)s AND calibration = %(calibration)s AND recorded_in >= %(since)s"""


def packed_code(space: SearchSpace, architecture: Architecture) -> bytes:
    """As the row keeps the network's codes: a byte a decision."""
    return bytes(space.encode([architecture])[0].tolist())


@dataclass(frozen=True, kw_only=True)
class ReadEvaluations:
    """What was read, and from where to go on."""

    columns: EvaluationColumns
    codes: Codes
    """Shape (n, number of decisions)."""
    recorded_in: npt.NDArray[np.int64]
    read_until: int
    """Whatever was not there yet is of this transaction or a later one: read from it on, and drop what is
    known already."""


def read(
    session: Session, protocol: EvaluationProtocol, space: SearchSpace, *, since: int = 0
) -> ReadEvaluations:
    """The evaluations measured in exactly this way by the transaction `since` and later ones."""
    # Looked at before the rows are: what ends in between is read now, and again the next time.
    read_until = session.scalars(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")).one()
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, Connection), "the driver is psycopg"
    asked = {
        "supernet_id": protocol.supernet_id,
        "checkpoint": protocol.checkpoint,
        "split": protocol.split.value,
        "num_images": protocol.num_images,
        "calibration": protocol.calibration,
        "since": since,
    }
    packed, codes = _read_packed(connection, asked, len(space.decisions))
    unpacked, older_codes = _read_unpacked(connection, asked, space)
    figures = {name: np.concatenate([packed[name], unpacked[name]]) for name in _FIGURES}
    recorded_in = figures.pop("recorded_in")
    columns = EvaluationColumns(
        evaluation_id=figures.pop("id"),
        num_images=np.full(len(recorded_in), protocol.num_images, dtype=np.int64),
        **figures,
    )
    return ReadEvaluations(
        columns=columns,
        codes=np.concatenate([codes, older_codes]),
        recorded_in=recorded_in,
        read_until=read_until,
    )


def _read_packed(
    connection: Connection, asked: Mapping[str, object], num_decisions: int
) -> tuple[Figures, Codes]:
    """Each column as one run of bytes, for a million rows are too many to be taken one by one."""
    columns = ", ".join(f"string_agg(int8send({name}::bigint), ''::bytea)" for name in _FIGURES)
    query = (
        f"SELECT {columns}, string_agg(code, ''::bytea) FROM evaluations "
        f"WHERE {_IS_MEASURED_BY} AND code IS NOT NULL"
    )
    with connection.cursor() as cursor:
        found = cursor.execute(query, asked, binary=True).fetchone()
    assert found is not None, "an aggregate is always a row"
    *figures, codes = (value or b"" for value in found)
    named = {
        name: np.frombuffer(value, ">i8").astype(np.int64)
        for name, value in zip(_FIGURES, figures, strict=True)
    }
    if len(codes) != num_decisions * len(named["id"]):
        raise InvalidArchitectureError(
            f"evaluations of {asked['supernet_id']} have codes of other than {num_decisions} decisions"
        )
    return named, np.frombuffer(codes, np.uint8).reshape(-1, num_decisions)


def _read_unpacked(
    connection: Connection, asked: Mapping[str, object], space: SearchSpace
) -> tuple[Figures, Codes]:
    """Those that an earlier release recorded, without their codes."""
    columns = ", ".join(f"{name}::bigint" for name in _FIGURES)
    query = f"SELECT {columns}, architecture FROM evaluations WHERE {_IS_MEASURED_BY} AND code IS NULL"
    with connection.cursor() as cursor:
        rows = cursor.execute(query, asked).fetchall()
    figures = np.array([row[:-1] for row in rows], dtype=np.int64).reshape(-1, len(_FIGURES))
    codes = space.encode(_parsed(space, (row[-1] for row in rows)))
    return dict(zip(_FIGURES, figures.T, strict=True)), codes.astype(np.uint8)


def _parsed(space: SearchSpace, descriptions: Iterator[object]) -> Iterator[Architecture]:
    for description in descriptions:
        # The driver hands JSON over as text or as what it says, by its settings.
        parsed = json.loads(description) if isinstance(description, str | bytes) else description
        yield space.parse(parsed)
