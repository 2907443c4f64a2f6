"""Attentive paths: of a few networks of one cost, the best or the worst on the batch is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.architecture import Architecture
from nas.recipe_choices import AttentionKind
from nas.subspace import SubSpace
from supernet.network import Supernet
from supernet.training.budget_tables import Budgets, BudgetTables
from supernet.training.paths import RandomPaths, Role, Slot, StepContext
from supernet.training.rng import Stream, generator_for
from supernet.training.shrink import Phase


class AttentivePaths(RandomPaths):
    """For each random slot a budget by the prior, candidates of that budget, and the one picked by its loss.

    Source: Wang et al., "AttentiveNAS", CVPR 2021, section 3; the loss on the batch as the surrogate of
    accuracy, as in the published code. It is the loss that the largest network learns by, label smoothing
    included, of a forward pass in train mode without gradients and without dropout. Where there is one
    candidate none is measured: what is left is the budget prior.

    A step costs one more forward pass a candidate, and one exchange of their losses between ranks.

    Deviation: budgets are `num_bins` equal parts of the space's range of MACs, not steps of 25 million, so
    that one recipe serves spaces of every size; with as many bins as the range has steps it is the paper's.
    Deviation: the losses are those of the whole batch. In the published code each rank picks by its own
    part, so that ranks train different networks; here a step's networks are the same on all ranks.
    """

    def __init__(
        self,
        seed: int,
        *,
        attention: AttentionKind,
        num_candidates: int,
        num_bins: int,
        label_smoothing: float,
    ) -> None:
        self._seed = seed
        self._attention = attention
        self._num_candidates = num_candidates
        self._num_bins = num_bins
        self._label_smoothing = label_smoothing
        self._part: SubSpace | None = None
        self._tables: BudgetTables | None = None

    def draw(self, phase: Phase, context: StepContext) -> tuple[Slot, ...]:
        """Slots, each a pure function of (seed, step, its place), the weights and the batch."""
        tables = self.tables(phase.space, context.supernet)
        groups = [self._candidates(tables, context.step, place) for place in range(phase.num_random)]
        return tuple(Slot(Role.RANDOM, architecture) for architecture in self._picked(groups, context))

    def tables(self, part: SubSpace, supernet: Supernet) -> BudgetTables:
        """Those of this part of the space: a pure function of it and of the seed, made when first needed."""
        if self._tables is None or self._part != part:
            budgets = Budgets.of(
                part, self._num_bins, num_classes=supernet.num_classes, in_channels=supernet.in_channels
            )
            self._part = part
            self._tables = BudgetTables(part, budgets, generator_for(self._seed, Stream.BUDGET_TABLES, 0, 0))
        return self._tables

    def describe(self) -> dict[str, Any]:
        """The budgets and how often each is drawn."""
        if self._tables is None:
            return {}
        return {
            "bin_edges_macs": self._tables.budgets.edges_macs.tolist(),
            "bin_probabilities": self._tables.prior_b.tolist(),
        }

    def _candidates(self, tables: BudgetTables, step: int, place: int) -> list[Architecture]:
        rng = generator_for(self._seed, Stream.PATH, step, place)
        budget = tables.draw_bin(rng)
        return [tables.draw_within(budget, rng) for _ in range(self._num_candidates)]

    def _picked(self, groups: Sequence[Sequence[Architecture]], context: StepContext) -> list[Architecture]:
        if self._num_candidates == 1 or not groups:
            return [group[0] for group in groups]
        losses_gk = self._losses([a for group in groups for a in group], context).view(len(groups), -1)
        places_g = losses_gk.argmin(1) if self._attention is AttentionKind.BEST_UP else losses_gk.argmax(1)
        return [group[place] for group, place in zip(groups, places_g.tolist(), strict=True)]

    @torch.no_grad()
    def _losses(self, candidates: Sequence[Architecture], context: StepContext) -> Tensor:
        """Of each, summed over the whole batch: the same number on every rank, so that all pick alike."""
        losses = torch.stack([self._loss(architecture, context) for architecture in candidates])
        context.collective.all_reduce_sum(losses)
        return losses

    def _loss(self, architecture: Architecture, context: StepContext) -> Tensor:
        logits_nk = context.forward(architecture)
        return F.cross_entropy(
            logits_nk.double(), context.labels_n, reduction="sum", label_smoothing=self._label_smoothing
        )
