"""One network trained on its own: the trainer of supernets on a space of one, then measured on val."""

from __future__ import annotations

from dataclasses import dataclass, replace

from safetensors.torch import save

from nas.store.artifacts import ArtifactStore
from nas.trial import Evaluation
from search_spaces import SPACES
from supernet.data import ResizedSplits
from supernet.device import take_device
from supernet.evaluate import SubnetEvaluator
from supernet.training.checkpoint import latest_checkpoint, load_checkpoint
from supernet.training.collective import SingleProcess
from supernet.training.formats import CheckpointError
from supernet.training.guard import rate_factor_of
from workers.observer import Observer
from workers.training import TrainingPlan, train


@dataclass(frozen=True, kw_only=True)
class SingleRun:
    """A training of one network, and where its weights are to go."""

    number: int
    plan: TrainingPlan
    """Of the network alone: `plan.supernet.network` says which."""
    weights_key: str


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """What came of it."""

    evaluation: Evaluation
    """On val, under the SHA-256 of its own weights."""
    weights_uri: str
    rate_factor: float
    """On the recipe's learning rate in the end: below 1 where the run diverged and was rolled back."""


def train_and_measure(run: SingleRun, artifacts: ArtifactStore, observer: Observer) -> MeasuredRun:
    """Train to the end, from the newest checkpoint if there is one, keep the weights and measure them."""
    plan = run.plan
    train(plan, collective=SingleProcess(), observer=observer)
    final = latest_checkpoint(plan.checkpoints)
    if final is None:
        raise CheckpointError(
            f"the final checkpoint was deleted from {plan.checkpoints} before its weights were kept; leave "
            "the worker's home alone, and verify again"
        )
    state = load_checkpoint(final)
    weights = state.weights
    stored = artifacts.put(
        run.weights_key, save({name: value.contiguous() for name, value in weights.items()})
    )
    device = take_device(plan.device)
    supernet = plan.supernet.build()
    supernet.load_state_dict(weights)
    evaluator = SubnetEvaluator(
        supernet.to(device).eval(),
        ResizedSplits(plan.data.load(), device=device),
        checkpoint=stored.sha256,
        stop_check=observer.check,
    )
    measured = evaluator.evaluate(supernet.space.largest())
    whole = SPACES[plan.supernet.search_space]
    assert plan.supernet.network is not None
    network = whole.canonical(whole.parse(plan.supernet.network))
    return MeasuredRun(
        evaluation=replace(measured, architecture=network),
        weights_uri=stored.uri,
        rate_factor=rate_factor_of(state),
    )
