"""What a refusal says would help does, put to the service as a request; what it says would not, does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nas.devices.accuracy import Accuracy
from nas.devices.model import LatencyModel
from nas.devices.residual import Interactions
from nas.job import JobKind
from nas.store import measurements
from tests.api.test_devices import measure, put_table
from tests.api.test_http_conventions import problem_of
from tests.api.worker import SPACE, costs_of
from tests.devices.lines import NETWORKS, probe_lines, table_of, text_of

LEAST = {f"max_{name}": cost for name, cost in costs_of(SPACE.smallest()).items()}
KEPT, BROKEN = [1.0, 1.1, 1.5], [0.1, 0.6, 0.95]
"""Bounds as multiples of what the smallest network needs, which is the cheapest, or next to it, in all."""
NUM_QUESTIONS = 6
NUM_ASKED = 5
"""On a busy machine the service may be out of time, and say that it is to be asked again."""


class Asking:
    """The same search under any constraints."""

    def __init__(self, http, supernet, device=None):
        self._http = http
        self._body = {"supernet_id": supernet.id, "num_trials": 1, "device": device}

    def validate(self, constraints):
        for _ in range(NUM_ASKED):
            body = {**self._body, "constraints": constraints}
            answer = self._http.post("/v1/searches:validate", json=body).raise_for_status().json()
            if answer["verdict"] != "undecided":
                break
        assert (answer["witness"] is None) == (answer["verdict"] != "feasible")
        return answer

    def create(self, constraints):
        return self._http.post("/v1/searches", json={**self._body, "constraints": constraints})


def questions(least, rng, *, always=()):
    """Bounds on some of the costs, of which one or two cannot be kept."""
    for number in range(NUM_QUESTIONS):
        others = [field for field in least if field not in always]
        fields = [
            *always,
            *rng.choice(others, size=rng.integers(2 - len(always), len(others) + 1), replace=False),
        ]
        broken = rng.choice(fields, size=1 + number % 2, replace=False)
        yield {
            str(field): float(least[field] * rng.choice(BROKEN if field in broken else KEPT))
            for field in fields
        }


def check_relief(asking, constraints, answer):
    """`relax` makes a search of it, and so does each of `relax_alone` that is a value."""
    assert answer["relax"].keys() == constraints.keys() >= answer["relax_alone"].keys()
    assert asking.validate(answer["relax"])["verdict"] == "feasible"
    assert asking.create(answer["relax"]).status_code == 201
    for field, alone in answer["relax_alone"].items():
        if alone is None:
            others = {name: limit for name, limit in constraints.items() if name != field}
            assert asking.validate(others)["verdict"] != "feasible"
        else:
            relaxed = {**constraints, field: alone}
            assert asking.validate(relaxed)["verdict"] == "feasible"
            assert asking.create(relaxed).status_code == 201


def check_questions(asking, least, rng, **options):
    """Check all the answers that are infeasible: some are, and in some one value alone would do."""
    found = []
    for constraints in questions(least, rng, **options):
        for _ in range(NUM_ASKED):
            answer = asking.validate(constraints)
            if answer["verdict"] != "infeasible":
                break
            problem = problem_of(asking.create(constraints), 422, "infeasible-constraints")
            # Else the time ran out in one of the two, which says so.
            if problem["is_least"] == answer["is_least"]:
                break
        if answer["verdict"] == "infeasible":
            told = ("nearest", "relax", "relax_alone", "is_least")
            assert [problem[name] for name in told] == [answer[name] for name in told]
            check_relief(asking, constraints, answer)
            found.append(any(answer["relax_alone"].values()))
    assert len(found) > 1 and any(found)


def latency_of_smallest(http, supernet):
    """As the service predicts it, told by what would do in place of next to nothing."""
    answer = Asking(http, supernet, "host").validate({"max_latency_ms": 1e-9})
    return answer["relax"]["max_latency_ms"]


@pytest.fixture
def host(http):
    http.post("/v1/devices", json={"name": "host"}).raise_for_status()


@pytest.fixture
def additive(http, host):
    put_table(http, text_of(table_of())).raise_for_status()


@pytest.fixture
def interacting(http, host, worker):
    """A latency that is no sum over blocks: the table's, times a factor of pairs of choices."""
    measure(http, probe_lines(count=40)).raise_for_status()
    num_options = sum(len(decision.options) for decision in NETWORKS.space.decisions)
    weights = 2e-3 * np.random.default_rng(8).standard_normal((num_options, num_options))
    model = replace(
        LatencyModel.of_table(table_of()),
        residual=Interactions(0.0, weights + weights.T),
        accuracy=Accuracy(num_networks=12, mape=0.03, hit_rate=1.0, spearman=0.9),
    )
    with worker.job(JobKind.FIT_LATENCY) as (session, measurements_id):
        measurements.set_model(session, measurements_id, model, None)


@pytest.mark.parametrize("seed", range(3))
def test_of_counted_costs(http, supernet, seed):
    check_questions(Asking(http, supernet), LEAST, np.random.default_rng(seed))


@pytest.mark.parametrize("model", ["additive", "interacting"])
def test_of_counted_costs_and_a_latency(request, http, supernet, model):
    request.getfixturevalue(model)
    least = {**LEAST, "max_latency_ms": latency_of_smallest(http, supernet)}
    asking = Asking(http, supernet, "host")
    check_questions(asking, least, np.random.default_rng(3), always=["max_latency_ms"])
