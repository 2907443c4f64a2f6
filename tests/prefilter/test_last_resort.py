"""What a search begins with where chance finds nothing, and what it says where nothing else does either."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import numpy as np
import pytest

from nas.architecture import Architecture
from nas.costs import COST_NAMES
from nas.prefilter.certificate import Verdict, certify
from nas.prefilter.last_resort import NoNetworkFoundError, last_resort
from nas.search.constraints import Bounds, cost_of
from nas.search.cost_model import Floor, SpaceCosts
from nas.search.region import FeasibleRegion
from search_spaces import SPACES

SPACE = SPACES["micro_8"]
COUNTED = SpaceCosts(space=SPACE)
AIM, *OTHERS = [SPACE.sample(np.random.default_rng(seed)) for seed in range(5)]
ENOUGH_S = 60.0


@dataclass(frozen=True)
class FarFrom:
    """The counted costs, and one without parts: how many decisions are unlike AIM's, and one more."""

    space: object = SPACE
    names: tuple[str, ...] = (*COST_NAMES, "distance")

    def parts(self, name):
        return Floor() if name == "distance" else COUNTED.parts(name)

    def batch(self, codes, names):
        counted = COUNTED.batch(codes, [name for name in names if name != "distance"])
        aim = SPACE.encode([AIM])
        return {
            name: counted[name] if name in counted else 1.0 + (codes != aim).sum(axis=1) for name in names
        }


class Sleepy(FarFrom):
    """It takes its time."""

    def batch(self, codes, names):
        time.sleep(0.05)
        return super().batch(codes, names)


def bounded(model=None, **limits: float) -> FeasibleRegion:
    return FeasibleRegion(model or FarFrom(), Bounds(tuple(sorted(limits.items()))))


def found(region, known=(), witness=None, limit_s=ENOUGH_S) -> list[Architecture]:
    return last_resort(region, known, witness=witness, limit_s=limit_s)


def refused(region, known=(), limit_s=ENOUGH_S) -> str:
    with pytest.raises(NoNetworkFoundError) as error:
        found(region, known, limit_s=limit_s)
    return str(error.value)


def macs_of(network: Architecture) -> float:
    return float(COUNTED.batch(SPACE.encode([network]), ["macs"])["macs"][0])


def limits_in(text: str) -> dict[str, float]:
    stated = re.findall(r"(max_\w+) (?:to )?([\d.e+]*\d)", text)
    return {cost_of(field): float(limit) for field, limit in stated}


def test_networks_measured_before_that_keep_the_bounds_come_first_by_accuracy():
    region = bounded(distance=100.0, macs=macs_of(OTHERS[0]))
    known = [*zip([SPACE.largest(), *OTHERS], (0.9, 0.2, 0.8, 0.5, 0.4), strict=True)]
    expected = sorted((pair for pair in known if region.contains(pair[0])), key=lambda pair: -pair[1])
    assert 0 < len(expected) < len(known)
    assert found(region, known, witness=AIM) == [network for network, _ in expected]


def test_the_certificates_network_is_next():
    assert found(bounded(distance=1.0), [(SPACE.largest(), 0.9)], witness=AIM) == [AIM]


def test_then_descents_find_what_chance_does_not():
    region = bounded(distance=1.0)
    assert found(region) == [AIM]


def test_where_nothing_is_found_the_nearest_is_told_and_what_is_to_be_relaxed_which_then_does():
    region = bounded(distance=1.5, macs=macs_of(AIM) - 1)
    assert certify(region).verdict is Verdict.UNDECIDED
    told = refused(region, [(SPACE.largest(), 0.9)])
    asked, remedy = told.split("none; tried were ")[0], told.split("relax the bounds to ")[1]
    assert limits_in(asked) == dict(region.bounds.limits)
    assert "1 networks measured before" in told
    together, _, alone = remedy.partition(", or raise one alone: ")
    assert found(bounded(**{**dict(region.bounds.limits), **limits_in(together)}))
    assert all(f"{name} " in told for name in FarFrom().names)
    assert limits_in(alone)
    for name, limit in limits_in(alone).items():
        assert found(bounded(**{**dict(region.bounds.limits), name: limit}))


def test_without_the_time_for_descents_it_is_told_all_the_same():
    told = refused(bounded(Sleepy(), distance=0.5), limit_s=0.01)
    assert "relax the bounds to a little more than that" in told
    assert "nearest found" in told and "distance " in told


def test_the_same_answer_each_time():
    assert refused(bounded(distance=0.5)) == refused(bounded(distance=0.5))
