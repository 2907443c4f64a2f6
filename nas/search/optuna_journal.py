"""A search as an Optuna study, in the file format of Optuna's JournalStorage: a JSON object a line.

Written out here, so that whoever serves the file need not have Optuna. The format is that of Optuna 5.0; the
tests read it with Optuna itself. Numbers of trials are the order of their lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nas.architecture import Architecture
from nas.pareto import Direction, Objective
from nas.space import Decision, SearchSpace

_CREATE_STUDY, _STUDY_USER_ATTRIBUTE, _STUDY_SYSTEM_ATTRIBUTE, _CREATE_TRIAL = 0, 2, 3, 4
_DIRECTIONS = {Direction.MINIMISE: 1, Direction.MAXIMISE: 2}
_COMPLETE = 1
_STUDY = 0
"""The only one of the file."""
_WRITER = "nas"
_METRIC_NAMES = "study:metric_names"
_CONSTRAINT = "constraints:"


@dataclass(frozen=True, kw_only=True)
class StudyTrial:
    """A measured network as a trial of the study."""

    network: Architecture
    values: Mapping[str, float]
    """By objective, as measured: accuracy is not turned."""
    excess: Mapping[str, float]
    """By constraint, how far the cost is above the limit: at most 0, for Optuna's idea of feasible."""
    notes: Mapping[str, Any]
    """JSON, as the trial's user attributes."""
    started_at: datetime
    ended_at: datetime


def study_lines(name: str, objectives: Sequence[Objective], notes: Mapping[str, Any]) -> Iterator[str]:
    """The beginning of the file; `notes` become the study's user attributes."""
    directions = [_DIRECTIONS[objective.direction] for objective in objectives]
    yield _line(_CREATE_STUDY, study_name=name, directions=directions)
    names = {_METRIC_NAMES: [objective.name for objective in objectives]}
    yield _line(_STUDY_SYSTEM_ATTRIBUTE, study_id=_STUDY, system_attr=names)
    for key, value in notes.items():
        yield _line(_STUDY_USER_ATTRIBUTE, study_id=_STUDY, user_attr={key: value})


def trial_line(space: SearchSpace, objectives: Sequence[Objective], trial: StudyTrial) -> str:
    """The line of the next trial. Its parameters are the network's active decisions, categories all."""
    chosen = [(decision, trial.network.get(decision.name)) for decision in space.decisions]
    active = [(decision, value) for decision, value in chosen if value is not None]
    values = [float(trial.values[objective.name]) for objective in objectives]
    is_one = len(values) == 1
    return _line(
        _CREATE_TRIAL,
        study_id=_STUDY,
        state=_COMPLETE,
        value=values[0] if is_one else None,
        values=None if is_one else values,
        datetime_start=_moment(trial.started_at),
        datetime_complete=_moment(trial.ended_at),
        distributions={decision.name: _distribution(decision) for decision, _ in active},
        params={decision.name: decision.options.index(value) for decision, value in active},
        user_attrs=dict(trial.notes),
        system_attrs={f"{_CONSTRAINT}{name}": float(excess) for name, excess in trial.excess.items()},
        intermediate_values={},
    )


def _line(operation: int, **fields: Any) -> str:
    entry = {"op_code": operation, "worker_id": _WRITER, **fields}
    return json.dumps(entry, separators=(",", ":"), allow_nan=False) + "\n"


def _distribution(decision: Decision) -> str:
    return json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": [*decision.options]}})


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
