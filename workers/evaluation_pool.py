"""A pool of Ray actors that measure networks: each holds the weights, and is sent architectures only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray
import torch

from nas.architecture import Architecture
from nas.errors import NasError
from nas.trial import Evaluation
from search_spaces import SPACES
from supernet.data import ResizedSplits
from supernet.device import CPU, take_device
from supernet.evaluate import SEARCH_KEPT_BYTES, SubnetEvaluator
from supernet.training.memory import tune_malloc
from workers.datasets import DatasetReference
from workers.devices import device_on_ray, gpus_each
from workers.weights import SupernetDescription, load_weights

_WAIT_S = 0.5
"""How often a waiting search looks whether it is cancelled."""
_ACTOR_RESTARTS = 3


@ray.remote(num_cpus=1, max_restarts=_ACTOR_RESTARTS, max_task_retries=_ACTOR_RESTARTS)
class EvaluationActor:
    """One single-threaded measuring process."""

    def __init__(
        self,
        description: SupernetDescription,
        weights: bytes,
        checkpoint: str,
        data: DatasetReference,
        device_name: str,
    ) -> None:
        tune_malloc()
        torch.set_num_threads(1)
        device = take_device(device_name)
        self._space = SPACES[description.search_space]
        self._evaluator = SubnetEvaluator(
            load_weights(description, weights).to(device),
            ResizedSplits(data.load(), device=device),
            checkpoint=checkpoint,
            max_kept_bytes=SEARCH_KEPT_BYTES,
        )

    def evaluate(self, architecture: dict[str, Any]) -> Evaluation:
        """The network's accuracy on val."""
        return self._evaluator.evaluate(self._space.parse(architecture))


class RayEvaluator:
    """An `nas.ports.Evaluator` over several actors. Close it to free them."""

    def __init__(
        self,
        description: SupernetDescription,
        weights: bytes,
        *,
        checkpoint: str,
        data: DatasetReference,
        num_actors: int,
        check: Callable[[], None],
        device: str = CPU.type,
    ) -> None:
        """`check` is called while waiting and raises when the work is to stop. On `device` auto or cuda the
        actors share the cluster's GPUs.
        """
        self._check = check
        num_gpus = gpus_each(device, num_actors)
        # One copy in the object store for all actors; held, for a restarted actor reads it again.
        self._weights = ray.put(weights)
        actor = EvaluationActor.options(num_gpus=num_gpus)
        self._actors = [
            actor.remote(description, self._weights, checkpoint, data, device_on_ray(num_gpus))
            for _ in range(num_actors)
        ]

    def evaluate(
        self, architectures: Sequence[Architecture], on_result: Callable[[Evaluation], None]
    ) -> list[Evaluation]:
        """Evaluations in the order of `architectures`; `on_result` is told each as it comes."""
        waiting = list(enumerate(architectures))[::-1]
        idle = list(self._actors)
        running: dict[Any, tuple[int, Any]] = {}
        results: dict[int, Evaluation] = {}
        while waiting or running:
            while waiting and idle:
                index, architecture = waiting.pop()
                actor = idle.pop()
                running[actor.evaluate.remote(architecture.to_json())] = (index, actor)
            for reference in self._ready(list(running)):
                index, actor = running.pop(reference)
                results[index] = _get(reference)
                idle.append(actor)
                on_result(results[index])
        return [results[index] for index in range(len(architectures))]

    def _ready(self, references: list[Any]) -> list[Any]:
        self._check()
        ready, _ = ray.wait(references, num_returns=1, timeout=_WAIT_S)
        return ready

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)


def _get(reference: Any) -> Evaluation:
    try:
        return ray.get(reference)
    except ray.exceptions.RayActorError as error:
        raise NasError(
            f"the measuring processes died {_ACTOR_RESTARTS} times, for want of memory perhaps: {error}"
        ) from error
    except ray.exceptions.RayTaskError as error:
        # The actor's own error is the one worth telling.
        raise error.cause if isinstance(error.cause, NasError) else error from error
