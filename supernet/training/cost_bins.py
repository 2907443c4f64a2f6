"""Cost bins: how often networks of each cost are trained, learned from how fast they improve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn

from supernet.training.architecture_generator import hard_choice


class CostBins(nn.Module):
    """A logit for each of K costs, all alike at first.

    Source: B of ShiftNAS (ICCV 2023, sections 3.2 and 4.1).

    Deviation: the paper's bins are 0.1 GFLOPs wide (1.3 G, 1.4 G, … 2.0 G for one of its spaces). Here the
    range from the cheapest network to the dearest is cut into `num_bins` equal parts, so that a space of any
    size has as many, and the cost of a bin is its middle.
    """

    def __init__(self, num_bins: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_bins))
        self.register_buffer("places", (torch.arange(num_bins) + 0.5) / num_bins, persistent=False)

    def probabilities(self) -> Tensor:
        """Shape (num_bins,)."""
        return self.logits.softmax(0)

    def draw(self, noise_nb: Tensor) -> Tensor:
        """(n,) bins by their probabilities, for Gumbel noise of shape (n, num_bins)."""
        return (self.logits.detach() + noise_nb).argmax(1)

    def place_of(self, noise_b: Tensor, *, temperature: float) -> Tensor:
        """A drawn bin's place in the range of costs, from 0 to 1, differentiable by the logits."""
        return hard_choice(self.logits + noise_b, temperature=temperature) @ self.places


@dataclass(frozen=True)
class CostRange:
    """From the cheapest network of a space to its dearest."""

    low: float
    high: float

    def macs(self, places: Tensor) -> Tensor:
        """Costs at places from 0 to 1."""
        return self.low + places.double() * (self.high - self.low)

    def told(self, places: Tensor) -> Tensor:
        """The same as the generator is told them, from -1 to 1.

        On a logarithmic scale: errors count as parts of the cost, and small networks would else lie next to
        each other.
        """
        share = (self.macs(places) / self.low).log() / log(self.high / self.low)
        return (2 * share - 1).float()


def gradient_through_generator(
    bins: CostBins, noise_b: Tensor, loss_change: Callable[[Tensor], Tensor], *, temperature: float
) -> Tensor:
    """The gradient of J = L_val(w_t, α(b)) − L_val(w_{t−1}, α(b)) by the logits, at one drawn bin b.

    Source: ShiftNAS, equations 4 to 8. `loss_change` gives J at a place in the range of costs, by way of the
    generator. Descending J makes bins likelier whose loss is falling fastest.

    It follows the slope of J by the cost at the drawn bin, so it moves probability up or down the range.

    Deviation: from the paper's claim, not from its equations. A single bin whose loss falls while its
    neighbours' stay it does not find; `gradient_by_score` does. This one is the default because it is what
    the paper does.
    """
    change = loss_change(bins.place_of(noise_b, temperature=temperature))
    (gradient,) = torch.autograd.grad(change, bins.logits)
    return gradient


@torch.no_grad()
def gradient_by_score(bins: CostBins, loss_change: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of E_b[J(b)] by the logits, π_b · (J(b) − E[J]), from J at every bin.

    A variant, not the paper's: it needs no slope of the loss by the cost, which says little of other bins.
    """
    changes_b = torch.stack([loss_change(place) for place in bins.places]).float().cpu()
    probabilities_b = bins.probabilities()
    return probabilities_b * (changes_b - probabilities_b @ changes_b)
