"""The pool that stays open between jobs: used again where it fits, and gone when it is in the way."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from nas.job import JobKind
from tests.api.worker import ladder
from tests.workers.conftest import drained_when
from tests.workers.table import Table
from workers.evaluation_job import EvaluationJob
from workers.open_evaluator import KeptEvaluator, OpenEvaluator, Releasing
from workers.service import WorkerService

LONG_S = 600.0


class Pools:
    """Every table that was opened, and for which checkpoint."""

    def __init__(self) -> None:
        self.opened: list[Table] = []

    def open(self, trained, check) -> OpenEvaluator:
        table = Table()
        table.check = check
        self.opened.append(table)
        return OpenEvaluator(evaluator=table, close=table.close)

    @property
    def num_closed(self) -> int:
        return sum(table.is_closed for table in self.opened)


def trained(checkpoint: str = "c0", supernet_id: str = "sn_a", calibration: str = "train[:256]/64"):
    row = SimpleNamespace(id=supernet_id)
    return SimpleNamespace(row=row, checkpoint=checkpoint, calibration=calibration)


def never() -> None:
    """A job that is not to stop."""


def use(kept: KeptEvaluator, of, check=never, count: int = 1) -> None:
    opened = kept.open(of, check)
    try:
        opened.evaluator.evaluate(ladder(5)[:count], lambda evaluation: None)
    finally:
        opened.close()


@pytest.fixture
def pools() -> Pools:
    return Pools()


@pytest.fixture
def kept(pools):
    kept = KeptEvaluator(pools.open, keep_s=LONG_S)
    yield kept
    kept.release()
    assert pools.num_closed == len(pools.opened)


def test_the_next_job_of_the_same_weights_uses_the_same_one(kept, pools):
    for _ in range(3):
        use(kept, trained())
    assert (len(pools.opened), pools.num_closed) == (1, 0)


@pytest.mark.parametrize("other", [trained("c1"), trained(supernet_id="sn_b"), trained(calibration="all")])
def test_other_weights_get_one_of_their_own_and_the_first_goes_before(kept, pools, other):
    use(kept, trained())
    opened = kept.open(other, never)
    assert [table.is_closed for table in pools.opened] == [True, False]
    opened.close()


def test_it_asks_the_check_of_the_job_that_uses_it(kept, pools):
    told = []
    use(kept, trained(), lambda: told.append("first"))
    use(kept, trained(), lambda: told.append("second"))
    pools.opened[0].check()
    assert told == ["second"]


def test_one_that_was_broken_off_is_not_used_again(kept, pools):
    def stop(evaluation):
        raise InterruptedError

    opened = kept.open(trained(), never)
    with pytest.raises(InterruptedError):
        opened.evaluator.evaluate(ladder(5), stop)
    opened.close()
    assert pools.opened[0].is_closed
    use(kept, trained())
    assert len(pools.opened) == 2


def test_one_in_use_is_left_alone_by_a_release(kept, pools):
    opened = kept.open(trained(), never)
    kept.release()
    assert pools.num_closed == 0
    opened.close()
    kept.release()
    assert pools.num_closed == 1


def test_it_goes_when_nobody_wants_it_for_a_while(pools):
    kept = KeptEvaluator(pools.open, keep_s=0.2)
    use(kept, trained())
    assert pools.num_closed == 0
    deadline = time.monotonic() + 30
    while pools.num_closed == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    use(kept, trained())
    kept.release()
    assert len(pools.opened) == 2


def test_none_is_kept_for_no_time(pools):
    before = set(threading.enumerate())
    kept = KeptEvaluator(pools.open, keep_s=0)
    use(kept, trained())
    assert pools.num_closed == 1
    assert set(threading.enumerate()) <= before


def test_another_kind_of_job_begins_with_nothing_kept(kept, pools):
    use(kept, trained())
    seen = []
    runner = SimpleNamespace(run=lambda job, context: seen.append((job, context, pools.num_closed)))
    Releasing(runner, kept.release).run("job", "context")
    assert seen == [("job", "context", 1)]


def test_a_worker_keeps_it_from_job_to_job_and_lets_it_go_at_its_end(site, supernet_id, pools, kept):
    batches = [site.add_batch(supernet_id, [network]).job.id for network in ladder(5)]
    runners = {JobKind.EVALUATE: EvaluationJob(site.database, open_evaluator=kept.open)}
    service = WorkerService(site.queue, runners, lease_s=60, poll_s=0.02, let_go=kept.release)
    with drained_when(service, lambda: site.have_ended(batches), timeout_s=60):
        service.run()
    (table,) = pools.opened
    assert len(table.measured) == 5
    assert table.is_closed


def test_an_idle_worker_looks_often_after_a_job_and_then_ever_less(site, supernet_id, monkeypatch):
    pauses: list[float] = []
    batch = site.add_batch(supernet_id, ladder(5)[:2])
    runners = {JobKind.EVALUATE: EvaluationJob(site.database, open_evaluator=Pools().open)}
    service = WorkerService(site.queue, runners, lease_s=60, poll_s=1.0)

    def note(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 30:
            service.drain()

    monkeypatch.setattr("workers.service.time.sleep", note)
    service.run()
    assert site.have_ended([batch.job.id])
    assert pauses[0] < 0.1
    assert pauses == sorted(pauses)
    assert pauses[-1] == 1.0
    assert sum(pauses[:5]) < 0.5
