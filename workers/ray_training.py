"""Data-parallel training on Ray Train workers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas.errors import NasError
from nas.probes import EpochProbes
from nas.store.supernets import TrainingPoint
from supernet.training.collective import Collective, TorchCollective
from supernet.training.guard import Rollback
from workers.context import AttemptLostError, WorkerDrainingError
from workers.devices import gpus_each
from workers.observer import Observer, WarmStartPoint
from workers.ray_errors import sentence
from workers.training import TrainingPlan, check_plan, train

logger = logging.getLogger(__name__)

_POLL_S = 1.0
"""How often rank 0 asks whether to stop."""
_FORWARD_S = 0.1
"""How often what the ranks tell is passed on; at an epoch's end they wait for it."""
_RESTARTS = 3
"""In a row, without a checkpoint in between."""
_STOP_PATIENCE_S = 2.0
_STOP_TIMEOUT_S = 15.0
_EXCHANGE_TIMEOUT_S = 4 * 3600
"""At an epoch's end the other ranks wait while one measures the probes."""
_STALLED_S = 120.0
"""Without a sign of the ranks; then it is looked whether they have a place at all."""


@ray.remote(num_cpus=0)
class NoticeBoard:
    """Where rank 0 leaves what it has to tell, and reads whether to stop."""

    def __init__(self) -> None:
        self._progress: tuple[int, int] | None = None
        self._notices: list[tuple[str, tuple[Any, ...]]] = []
        self._num_told = 0
        self._num_passed_on = 0
        self._is_stopped = False
        self._error: str | None = None

    def tell_progress(self, done: int, total: int) -> bool:
        """Note how far the run is; whether it is to stop."""
        self._progress = (done, total)
        return self._is_stopped

    def tell(self, method: str, arguments: tuple[Any, ...]) -> int:
        """Leave a call for the observer in the worker's process; its number, from 1."""
        self._notices.append((method, arguments))
        self._num_told += 1
        return self._num_told

    def pass_on(self, count: int) -> None:
        """Note that the observer has returned from so many more calls."""
        self._num_passed_on += count

    def is_passed_on(self, number: int) -> bool:
        """Whether the observer has returned from that call."""
        return self._num_passed_on >= number

    def stop(self) -> None:
        """Ask the run to stop."""
        self._is_stopped = True

    def fail(self, error: str) -> None:
        """Note an error that another try would meet again, and have the other ranks not try."""
        self._error = self._error or error
        self._is_stopped = True

    def is_stopped(self) -> bool:
        """Whether the run is to stop."""
        return self._is_stopped

    def error(self) -> str | None:
        """The first error that a rank met."""
        return self._error

    def collect(self) -> tuple[tuple[int, int] | None, list[tuple[str, tuple[Any, ...]]]]:
        """Everything told since the last call."""
        notices, self._notices = self._notices, []
        return self._progress, notices


class _BoardObserver:
    """An Observer on a Ray Train worker. Only rank 0 has anything to tell."""

    def __init__(self, board: Any, collective: Collective) -> None:
        self._board = board
        self._collective = collective
        self._asked_at: float | None = None

    def on_step(self, done: int, total: int) -> None:
        # Rank 0 decides for all at the same step: one that stopped alone would leave the others waiting.
        is_stopped = torch.zeros(1)
        if self._collective.rank == 0 and self._is_time_to_ask():
            is_stopped[0] = ray.get(self._board.tell_progress.remote(done, total))
        self._collective.broadcast(is_stopped)
        if is_stopped.item():
            raise WorkerDrainingError("the training was asked to stop")

    def _is_time_to_ask(self) -> bool:
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at < _POLL_S:
            return False
        self._asked_at = now
        return True

    def on_point(self, point: TrainingPoint) -> None:
        # Waited for: a checkpoint past a point that died with the worker would leave a gap in the curves.
        number = ray.get(self._board.tell.remote("on_point", (point,)))
        stopped_at = None
        while not ray.get(self._board.is_passed_on.remote(number)):
            if ray.get(self._board.is_stopped.remote()):
                # Who asked goes on passing on, unless it is gone itself.
                stopped_at = stopped_at or time.monotonic()
                if time.monotonic() - stopped_at > _STOP_PATIENCE_S:
                    self._asked_at = None
                    raise WorkerDrainingError("the training was asked to stop")
            time.sleep(_FORWARD_S / 2)

    def on_probes(self, probes: EpochProbes) -> None:
        # Passed on before the point, which is waited for.
        ray.get(self._board.tell.remote("on_probes", (probes,)))

    def on_checkpoint(self, num_steps: int) -> None:
        ray.get(self._board.tell.remote("on_checkpoint", (num_steps,)))

    def on_rollback(self, rollbacks: Sequence[Rollback]) -> None:
        ray.get(self._board.tell.remote("on_rollback", (rollbacks,)))

    def on_damaged_checkpoint(self, name: str, reason: str) -> None:
        ray.get(self._board.tell.remote("on_damaged_checkpoint", (name, reason)))

    def on_warm_start(self, start: WarmStartPoint) -> None:
        ray.get(self._board.tell.remote("on_warm_start", (start,)))

    def check(self) -> None:
        # Rank 0 alone measures probes; it goes on to the step, where all ranks stop together.
        if self._is_time_to_ask() and ray.get(self._board.is_stopped.remote()):
            self._asked_at = None
            raise WorkerDrainingError("the training was asked to stop")

    def on_resume(self, step: int, departures: tuple[str, ...]) -> None:
        if self._collective.rank == 0:
            ray.get(self._board.tell.remote("on_resume", (step, departures)))


def train_on_ray(
    plan: TrainingPlan, *, num_workers: int, observer: Observer, check: Callable[[], None]
) -> None:
    """Train on `num_workers` ranks to the end. Where one dies, all restart from the last checkpoint.

    Given up, with NasError, once ranks have died several times in a row without a checkpoint in between.
    AttemptLostError where Ray itself fails: another attempt may go on from the checkpoints.
    """
    try:
        _train(plan, num_workers, observer, check)
    except RayError as error:
        raise AttemptLostError(f"Ray failed: {sentence(error)}") from error


def _train(plan: TrainingPlan, num_workers: int, observer: Observer, check: Callable[[], None]) -> None:
    _check_cluster(plan, num_workers)
    # Ray would try several times what fails each time.
    check_plan(plan, num_workers=num_workers)
    board = _board()
    forwarding = _Forwarding(board, observer, num_workers)
    try:
        while True:
            num_landed = forwarding.num_landed
            fit = _Fit(_trainer(plan, num_workers, board))
            fit.start()
            _follow(fit, forwarding, board, check)
            told = ray.get(board.error.remote())
            if told is not None:
                raise NasError(told)
            if fit.error is None:
                return
            if not isinstance(fit.error, WorkerGroupError):
                # Nothing that the ranks did: the controller, or Ray itself.
                raise AttemptLostError(f"Ray failed: {sentence(fit.error)}") from fit.error
            if forwarding.num_landed == num_landed:
                raise NasError(
                    f"the training's processes have died {_RESTARTS + 1} times in a row without getting "
                    f"further ({sentence(fit.error)}); the worker's log has what they said"
                ) from fit.error
            # Ray counts over the whole run, which may take days; what died after the newest checkpoint
            # gets another count of its own.
            logger.warning("ranks died %d times: %s; they go on", _RESTARTS + 1, sentence(fit.error))
    finally:
        ray.kill(board)


def _check_cluster(plan: TrainingPlan, num_workers: int) -> None:
    num_cpus = _num_cpus()
    if num_workers > num_cpus:
        raise NasError(
            f"num_workers {num_workers} is more than the {num_cpus} CPUs that Ray has; "
            "ask for fewer, or add machines to the cluster"
        )
    num_gpus = gpus_each(plan.device, num_workers)
    if 0 < num_gpus < 1:
        raise NasError(
            f"num_workers {num_workers} is more than the GPUs that Ray has, and each worker needs its own; "
            "ask for fewer, or set NAS_DEVICE to cpu"
        )


def _num_cpus() -> int:
    return int(ray.cluster_resources().get("CPU", 0))


def _board() -> Any:
    """On this machine: one that lay with a rank would be lost with it, and all that it was told."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return NoticeBoard.options(scheduling_strategy=here).remote()


def _trainer(plan: TrainingPlan, num_workers: int, board: Any) -> TorchTrainer:
    num_gpus = gpus_each(plan.device, num_workers)
    return TorchTrainer(
        _train_rank,
        train_loop_config={"plan": plan, "board": board},
        torch_config=TorchConfig(
            # Gloo also where there are GPUs: what ranks say of themselves lies with the processor.
            backend="cpu:gloo,cuda:nccl" if num_gpus else "gloo",
            timeout_s=_EXCHANGE_TIMEOUT_S,
        ),
        scaling_config=ScalingConfig(
            num_workers=num_workers, use_gpu=num_gpus > 0, resources_per_worker={"CPU": 1}
        ),
        run_config=RunConfig(
            # Beside the run's own checkpoints, and so removed with them.
            storage_path=str(plan.checkpoints / "ray"),
            failure_config=FailureConfig(max_failures=_RESTARTS),
        ),
    )


def _follow(fit: _Fit, forwarding: _Forwarding, board: Any, check: Callable[[], None]) -> None:
    """Pass on what the ranks tell until they have ended; stop them where the job is to stop."""
    try:
        while fit.is_alive():
            fit.join(_FORWARD_S)
            forwarding.forward()
            check()
        forwarding.forward()
    except BaseException:
        with suppress(RayError):
            ray.get(board.stop.remote())
        _let_end(fit, forwarding)
        raise


def _let_end(fit: _Fit, forwarding: _Forwarding) -> None:
    """An epoch whose point is still passed on is saved, and need not be trained again.

    Ranks that still wait for free CPUs cannot be asked; without the board they end as they start.
    """
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while fit.is_alive() and time.monotonic() < deadline:
        fit.join(_FORWARD_S)
        # The observer may say once more that the job is to stop, after it has heard what there was.
        with suppress(Exception):
            forwarding.forward()


class _Forwarding:
    """Passes on to the observer what the ranks leave on the board."""

    def __init__(self, board: Any, observer: Observer, num_workers: int) -> None:
        self._board = board
        self._observer = observer
        self._num_workers = num_workers
        self._progress: tuple[int, int] | None = None
        self._moved_at = time.monotonic()
        self.num_landed = 0
        """Steps on disk, those rolled back included."""

    def forward(self) -> None:
        """Everything that is new."""
        progress, notices = ray.get(self._board.collect.remote())
        for method, arguments in notices:
            getattr(self._observer, method)(*arguments)
            if method == "on_checkpoint":
                self.num_landed = max(self.num_landed, *arguments)
            if method == "on_damaged_checkpoint":
                # Its steps are taken again, and are progress again.
                self.num_landed = 0
        if notices:
            ray.get(self._board.pass_on.remote(len(notices)))
        if progress is not None:
            self._observer.on_step(*progress)
        if notices or progress != self._progress:
            self._progress, self._moved_at = progress, time.monotonic()
        elif time.monotonic() - self._moved_at > _STALLED_S:
            self._explain_stall()

    def _explain_stall(self) -> None:
        """Ray waits without end, and without a word, for machines that have left the cluster."""
        self._moved_at = time.monotonic()
        if (num_cpus := _num_cpus()) < self._num_workers:
            logger.warning(
                "the training waits for %d CPUs, and Ray has %d now: add machines to the cluster, or cancel "
                "it and begin another with fewer num_workers from its weights",
                self._num_workers,
                num_cpus,
            )


class _Fit(threading.Thread):
    """`fit` blocks, and the job has a lease to watch meanwhile."""

    def __init__(self, trainer: TorchTrainer) -> None:
        super().__init__(name="ray-train", daemon=True)
        self._trainer = trainer
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:
            self.error = error


def _train_rank(config: dict[str, Any]) -> None:
    collective = TorchCollective()
    # The GPU that Ray has given this rank, or the processor.
    plan: TrainingPlan = replace(config["plan"], device=str(ray.train.torch.get_device()))
    board = config["board"]
    # To Ray an exception is a failure, after which it starts all ranks again: in vain, once one has told
    # of an error or all have been asked to stop.
    if ray.get(board.is_stopped.remote()):
        return
    try:
        train(plan, collective=collective, observer=_BoardObserver(board, collective))
    except WorkerDrainingError:
        return
    except NasError as error:
        ray.get(board.fail.remote(str(error)))
        # Raised all the same: the ranks that met no error wait for this one.
        raise
