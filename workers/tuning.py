"""Trainings of single networks under Ray Tune: it walks the grid, each run in a process with one thread.

Tune holds no truth: what a run comes to is told to the worker, which writes the row; of a job that is killed
the runs without a row are given to Tune anew, and go on from their own checkpoints.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, Stopper, TuneConfig, Tuner

from nas.architecture import Architecture
from nas.errors import NasError
from nas.store.artifacts import ArtifactStore
from nas.store.supernets import TrainingPoint
from nas.trial import Evaluation, Split
from search_spaces import SPACES
from workers.devices import device_on_ray, gpus_each
from workers.observer import SilentObserver
from workers.ray_errors import sentence
from workers.single_run import MeasuredRun, SingleRun, train_and_measure

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_RESTARTS = 2
"""Of a run whose process dies; one that meets an error of ours is not tried again."""
_STOP_TIMEOUT_S = 15.0
_MEASURED, _FAILED, _EPOCH = "measured", "failed", "epoch"


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Whom the runs tell, each by its number, in the thread that waits for them."""

    on_measured: Callable[[int, MeasuredRun], None]
    on_failed: Callable[[int, str], None]
    on_epoch: Callable[[int, int], None]
    """The epochs that are done."""


def tune_runs(
    runs: Sequence[SingleRun],
    artifacts: ArtifactStore,
    *,
    storage: Path,
    num_at_once: int,
    device: str,
    check: Callable[[], None],
    listener: Listener,
) -> None:
    """Do all runs, several at once; `check` is called meanwhile and raises when they are to stop."""
    # It would tell where it wrote files, and that others, which nobody wants, are missing.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    by_number = {run.number: run for run in runs}
    num_gpus = gpus_each(device, num_at_once)
    messages, stop = _Messages(), _StopAll()
    train = tune.with_parameters(
        _train_run, runs=by_number, artifacts=artifacts, device=device_on_ray(num_gpus)
    )
    tuner = Tuner(
        tune.with_resources(train, {"cpu": 1, "gpu": num_gpus}),
        param_space={"run": tune.grid_search([*by_number])},
        tune_config=TuneConfig(max_concurrent_trials=num_at_once, reuse_actors=False),
        run_config=RunConfig(
            name=token_hex(8),
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=_RESTARTS),
            callbacks=[messages],
            stop=stop,
            verbose=0,
        ),
    )
    fit = _Fit(tuner)
    fit.start()
    pending = _Pending(by_number, listener)
    try:
        while fit.is_alive():
            pending.hear(messages, timeout_s=_POLL_S)
            check()
    except BaseException:
        stop.event.set()
        fit.join(_STOP_TIMEOUT_S)
        raise
    pending.hear(messages, timeout_s=0)
    if fit.error is not None:
        raise NasError(f"Ray Tune failed: {sentence(fit.error)}") from fit.error
    pending.end()


class _Pending:
    """The runs of which nothing final was heard; each is told of once."""

    def __init__(self, runs: Mapping[int, SingleRun], listener: Listener) -> None:
        self._runs = dict(runs)
        self._listener = listener

    def hear(self, messages: _Messages, *, timeout_s: float) -> None:
        """Pass on what there is, waiting for the first so long."""
        try:
            while True:
                self._tell(
                    *messages.queue.get(timeout=timeout_s) if timeout_s else messages.queue.get_nowait()
                )
                timeout_s = 0
        except queue.Empty:
            return

    def end(self) -> None:
        """No more will be heard."""
        for number in sorted(self._runs):
            self._tell(number, _FAILED, "its process ended without a word")

    def _tell(self, number: int, kind: str, value: Any) -> None:
        run = self._runs.get(number)
        if run is None:
            return
        if kind == _EPOCH:
            self._listener.on_epoch(number, int(value))
            return
        del self._runs[number]
        if kind == _MEASURED:
            self._listener.on_measured(number, _measured(run, json.loads(value)))
        else:
            self._listener.on_failed(number, str(value))


class _Messages(Callback):
    """What Tune hears of its trials, on its way to the worker's own thread."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[tuple[int, str, Any]] = queue.SimpleQueue()

    def __getstate__(self) -> dict[str, Any]:
        # Tune keeps a copy of what it was given; a queue is this process's own.
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A report of one run."""
        for kind in (_MEASURED, _FAILED, _EPOCH):
            if kind in result:
                self.queue.put((trial.config["run"], kind, result[kind]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A run whose process has died once too often."""
        error = trial.get_error()
        logger.warning("a run's process failed", extra={"run": trial.config["run"], "error": str(error)})
        self.queue.put((trial.config["run"], _FAILED, sentence(error)))


class _StopAll(Stopper):
    """Ends every trial once its event is set."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Asked by Tune several times a second."""
        return self.event.is_set()


class _Fit(threading.Thread):
    """`fit` blocks, and the job has a lease to watch meanwhile."""

    def __init__(self, tuner: Tuner) -> None:
        super().__init__(name="ray-tune", daemon=True)
        self._tuner = tuner
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._tuner.fit()
        except Exception as error:
            self.error = error


class _TuneObserver(SilentObserver):
    """In a run's process: tells of each epoch."""

    def on_point(self, point: TrainingPoint) -> None:
        tune.report({_EPOCH: point.epoch + 1})


def _train_run(
    config: dict[str, Any], runs: Mapping[int, SingleRun], artifacts: ArtifactStore, device: str
) -> None:
    run = runs[config["run"]]
    run = replace(run, plan=replace(run.plan, device=device))
    try:
        measured = train_and_measure(run, artifacts, _TuneObserver())
    except NasError as error:
        # To Tune an exception is a failure, after which it tries again what would fail again.
        tune.report({_FAILED: str(error)})
        return
    tune.report({_MEASURED: json.dumps(_to_json(measured))})


def _to_json(measured: MeasuredRun) -> dict[str, Any]:
    evaluation = measured.evaluation
    figures = {name: getattr(evaluation, name) for name in _FIGURES}
    return {
        "figures": figures,
        "split": evaluation.split.value,
        "correct_bitmap": evaluation.correct_bitmap.hex(),
        "weights_uri": measured.weights_uri,
        "rate_factor": measured.rate_factor,
    }


def _measured(run: SingleRun, told: Mapping[str, Any]) -> MeasuredRun:
    figures = dict(told["figures"])
    for name in ("per_class_correct", "per_class_images"):
        figures[name] = tuple(figures[name])
    evaluation = Evaluation(
        architecture=_network_of(run),
        split=Split(told["split"]),
        correct_bitmap=bytes.fromhex(told["correct_bitmap"]),
        **figures,
    )
    return MeasuredRun(
        evaluation=evaluation, weights_uri=told["weights_uri"], rate_factor=told["rate_factor"]
    )


_FIGURES = (
    "checkpoint",
    "num_images",
    "calibration",
    "num_correct",
    "per_class_correct",
    "per_class_images",
    "duration_s",
)


def _network_of(run: SingleRun) -> Architecture:
    whole = SPACES[run.plan.supernet.search_space]
    assert run.plan.supernet.network is not None
    return whole.canonical(whole.parse(run.plan.supernet.network))
