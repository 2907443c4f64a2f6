"""A search as an Optuna study: its trials so far, as the lines of a file for Optuna's JournalStorage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from api.latency import DeviceLatency
from api.schemas.evaluations import describe_trial
from nas.devices.device import LATENCY
from nas.search.constraints import cost_of
from nas.search.optuna_journal import StudyTrial, study_lines, trial_line
from nas.search.settings import ACCURACY, parse_objectives
from nas.space import SearchSpace
from nas.store import searches
from nas.store.database import Database
from nas.store.searches import TrialWithEvaluation
from nas.store.tables import SearchRow

_PAGE_SIZE = 500
_NOTED = (
    "architecture_key",
    "architecture",
    "round",
    "origin",
    "is_reused",
    "latency_ms",
    "accuracy_val",
    "predicted_accuracy_val",
)
"""Of a trial as answers show it, what its parameters and values do not tell."""


def optuna_journal(
    database: Database, search: SearchRow, space: SearchSpace, latency: DeviceLatency | None
) -> Iterator[str]:
    """The file's lines; `latency` is what predicts for the search, where it has a device.

    Trials are read in pages, each in a transaction of its own: none is held for a slow reader. They are never
    changed and come in the order of their numbers, so pages fit together while the search runs.
    """
    objectives = parse_objectives(search.objectives)
    notes = {"search_id": search.id, "supernet_id": search.supernet_id, "constraints": search.constraints}
    yield from study_lines(search.id, objectives, notes)
    last = -1
    while True:
        with database.session() as session:
            page = searches.trials(session, search.id, page_size=_PAGE_SIZE, after_number=last)
        for found in page:
            yield trial_line(space, objectives, _trial(search, space, latency, found))
        if len(page) < _PAGE_SIZE:
            return
        last = page[-1].trial.number


def _trial(
    search: SearchRow, space: SearchSpace, latency: DeviceLatency | None, found: TrialWithEvaluation
) -> StudyTrial:
    row = found.evaluation
    predicted = None if latency is None else latency.of_rows([row])[0]
    shown = describe_trial(found, search.proposer, predicted).model_dump(mode="json")
    figures = {**shown["costs"], ACCURACY.name: row.num_correct / row.num_images}
    if predicted is not None:
        figures[LATENCY] = predicted.value
    # What was measured before the search took it no time.
    lasted = timedelta(seconds=0 if found.trial.is_reused else row.duration_s)
    return StudyTrial(
        network=space.parse(row.architecture),
        values={name: figures[name] for name in search.objectives},
        excess={field: figures[cost_of(field)] - limit for field, limit in search.constraints.items()},
        notes={name: shown[name] for name in _NOTED},
        started_at=found.trial.created_at - lasted,
        ended_at=found.trial.created_at,
    )
