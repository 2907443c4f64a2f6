"""Jobs whose networks are measured by a table, by workers that may be killed in place of a process."""

from __future__ import annotations

from types import SimpleNamespace

from sqlalchemy import select

from nas.job import JobKind
from nas.store.tables import EvaluationRow
from tests.api.worker import NUM_VAL, measurement
from tests.workers.conftest import drained_when, expire_leases
from workers.evaluation_job import EvaluationJob
from workers.open_evaluator import OpenEvaluator
from workers.search_job import SearchJob
from workers.service import WorkerService


class Killed(BaseException):
    """In place of kill -9: nothing that the worker could do about it runs."""


class Table:
    """Measures by looking up; `before` is called with the number measured so far and may raise."""

    def __init__(self, before=lambda num_measured: None) -> None:
        self._before = before
        self.num_opened = 0
        self.measured: list[str] = []
        self.is_closed = False

    def evaluate(self, architectures, on_result):
        results = []
        for architecture in architectures:
            self._before(len(self.measured))
            results.append(measurement(architecture, int(architecture.key[:6], 16) % NUM_VAL))
            self.measured.append(architecture.key)
            on_result(results[-1])
        return results

    def close(self) -> None:
        self.is_closed = True


def run_with_table(site, job_id: str, table: Table) -> None:
    """A worker of its own, until the job has ended or has killed it; the next one need not wait."""
    opened = SimpleNamespace(check=None)

    def open_evaluator(trained, check):
        opened.check = check
        table.num_opened += 1
        return OpenEvaluator(evaluator=table, close=table.close)

    runners = {
        JobKind.SEARCH: SearchJob(site.database, open_evaluator=open_evaluator),
        JobKind.EVALUATE: EvaluationJob(site.database, open_evaluator=open_evaluator),
    }
    service = WorkerService(site.queue, runners, lease_s=60, poll_s=0.02)
    table.check = lambda: opened.check()
    try:
        with drained_when(service, lambda: site.have_ended([job_id]), timeout_s=240):
            service.run()
    except Killed:
        expire_leases(site.database)
        raise


def measured_keys(site, supernet_id: str) -> list[str]:
    query = select(EvaluationRow.architecture_key).where(EvaluationRow.supernet_id == supernet_id)
    with site.database.session() as session:
        return list(session.scalars(query.order_by(EvaluationRow.id)))
