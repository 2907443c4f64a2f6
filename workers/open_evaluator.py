"""An evaluator for one job, and one that is kept open from job to job.

An outside optimiser asks for a few networks, learns, and asks again. To start processes that load torch,
the weights and the images takes far longer than to measure a few networks; so the pool of the last job
stays for the next one of the same weights, and goes soon after nobody wants it any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas.architecture import Architecture
from nas.job import Job
from nas.ports import Evaluator
from nas.trial import Evaluation
from workers.context import JobContext
from workers.service import Finish, JobRunner
from workers.trained import TrainedSupernet

Check = Callable[[], None]
"""Raises when the job is to stop."""


@dataclass(frozen=True, kw_only=True)
class OpenEvaluator:
    """An evaluator, and how to let it go."""

    evaluator: Evaluator
    close: Callable[[], None]


EvaluatorFactory = Callable[[TrainedSupernet, Check], OpenEvaluator]


class OpenedWhenNeeded:
    """An evaluator that is opened for the first network to measure: much that can fail comes before that."""

    def __init__(self, open_evaluator: Callable[[], OpenEvaluator]) -> None:
        self._open_evaluator = open_evaluator
        self._opened: OpenEvaluator | None = None

    def evaluate(
        self, architectures: Sequence[Architecture], on_result: Callable[[Evaluation], None]
    ) -> list[Evaluation]:
        """As the evaluator does; nothing is opened for no networks."""
        if not architectures:
            return []
        if self._opened is None:
            self._opened = self._open_evaluator()
        return self._opened.evaluator.evaluate(architectures, on_result)

    def close(self) -> None:
        """Let the evaluator go, if one was opened."""
        if self._opened is not None:
            self._opened.close()


class KeptEvaluator:
    """Opens evaluators as the factory does, and keeps the last one while it may be of use."""

    def __init__(self, open_evaluator: EvaluatorFactory, *, keep_s: float) -> None:
        """`keep_s` is how long one that nobody uses is kept."""
        self._open_evaluator = open_evaluator
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._kept: _Kept | None = None
        self._timer: threading.Timer | None = None

    def open(self, trained: TrainedSupernet, check: Check) -> OpenEvaluator:
        """The evaluator of the last job where it is of the same weights, else a new one."""
        kept = self._take()
        if kept is not None and not kept.is_of(trained):
            kept.opened.close()
            kept = None
        if kept is None:
            forwarded = _ForwardedCheck()
            forwarded.check = check
            opened = self._open_evaluator(trained, forwarded)
            kept = _Kept(_identity(trained), opened, forwarded)
        kept.forwarded.check = check
        watched = _Watched(kept.opened.evaluator)
        return OpenEvaluator(evaluator=watched, close=lambda: self._put_back(kept, watched))

    def release(self) -> None:
        """Close the one that is kept, if there is one; one that is in use stays."""
        kept = self._take()
        if kept is not None:
            kept.opened.close()

    def _take(self) -> _Kept | None:
        """What is kept, no longer kept."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            kept, self._kept, self._timer = self._kept, None, None
        return kept

    def _put_back(self, kept: _Kept, watched: _Watched) -> None:
        # One that was broken off may still be busy with what nobody waits for.
        if not watched.is_idle or self._keep_s <= 0:
            kept.opened.close()
            return
        with self._lock:
            self._kept = kept
            self._timer = threading.Timer(self._keep_s, self.release)
            self._timer.daemon = True
            self._timer.start()


class Releasing:
    """A runner of jobs that want the memory and the processors that a kept evaluator holds."""

    def __init__(self, runner: JobRunner, release: Callable[[], None]) -> None:
        self._runner = runner
        self._release = release

    def run(self, job: Job, context: JobContext) -> Finish:
        """Run the job with nothing kept beside it."""
        self._release()
        return self._runner.run(job, context)


_Identity = tuple[str, str, str]


def _identity(trained: TrainedSupernet) -> _Identity:
    """What two jobs must agree in to be measured by the same processes."""
    return trained.row.id, trained.checkpoint, trained.calibration


@dataclass(frozen=True)
class _Kept:
    identity: _Identity
    opened: OpenEvaluator
    forwarded: _ForwardedCheck

    def is_of(self, trained: TrainedSupernet) -> bool:
        return self.identity == _identity(trained)


class _ForwardedCheck:
    """The check of whichever job uses the evaluator now."""

    check: Check

    def __call__(self) -> None:
        self.check()


class _Watched:
    """Knows whether its evaluator has ended all it began."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self.is_idle = True

    def evaluate(
        self, architectures: Sequence[Architecture], on_result: Callable[[Evaluation], None]
    ) -> list[Evaluation]:
        self.is_idle = False
        results = self._evaluator.evaluate(architectures, on_result)
        self.is_idle = True
        return results
