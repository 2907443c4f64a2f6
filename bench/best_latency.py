"""`best` and `frontier` by latency over HTTP: the first query on a device, and those after it.

Times are made up; what is measured is how long answers take, for each form that a latency model may have.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench.latency_models import made_up_models
from nas.costs import COST_NAMES, costs
from nas.devices.fitting import MeasuredNetworks
from nas.devices.measurements import Measurements
from nas.devices.model import LatencyModel
from nas.devices.parts import NetworkBlocks
from nas.devices.table import LatencyTable
from nas.space import SearchSpace
from nas.store import devices, evaluations, measurements
from nas.store.database import Database
from nas.store.evaluation_columns import packed_code
from nas.store.evaluations import EvaluationProtocol
from nas.trial import Evaluation


def measure_latency_answers(
    http: httpx.Client,
    database: Database,
    protocol: EvaluationProtocol,
    space: SearchSpace,
    *,
    num_classes: int,
    num: int,
    pid: int,
) -> None:
    """Print how long answers take by an additive model, one with interactions, and one with trees."""
    networks = NetworkBlocks.of(space, num_classes=num_classes, in_channels=3)
    path = f"/v1/supernets/{protocol.supernet_id}"
    for form, model in made_up_models(networks):
        _publish(database, model, networks)
        name, bounds = model.device.name, _bounds(model, networks)
        before_s = _processor_s(pid)
        first, _ = _asked(http, f"{path}/best", [{"device": name, "max_latency_ms": bounds[0]}])
        took_s = _processor_s(pid) - before_s
        print(
            f"best by latency, {form}: the first query {first[0]:.0f} ms, {took_s:.1f} s of the service's "
            f"processor time (load {os.getloadavg()[0]:.0f})",
            flush=True,
        )
        asked = [{"device": name, "max_latency_ms": bound} for bound in np.resize(bounds, num).tolist()]
        _tell(f"best by latency, {form}, from the second on", *_asked(http, f"{path}/best", asked))
        two = [{**query, "max_macs": "60%", "max_params": "70%"} for query in asked]
        _tell(f"best by latency, MACs and params, {form}", *_asked(http, f"{path}/best", two))
        none = [{"device": name, "max_latency_ms": 1e-6}] * num
        _tell(f"best by latency, {form}, nothing is fast enough", *_asked(http, f"{path}/best", none))
        front = [{**query, "objectives": "latency_ms"} for query in asked[: max(3, num // 20)]]
        _tell(f"frontier of accuracy and latency, {form}", *_asked(http, f"{path}/frontier", front))
    _tell("one more evaluation, then best by latency", *_interleaved(http, database, protocol, space, num))


def _processor_s(pid: int) -> float:
    """What the process has used up to now, all threads; Linux alone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _codes(space: SearchSpace, num: int, rng: np.random.Generator) -> np.ndarray:
    return np.stack([rng.integers(len(d.options), size=num) for d in space.decisions], axis=1)


def _publish(database: Database, model: LatencyModel, networks: NetworkBlocks) -> None:
    """As a worker would have: the model is made up, the rows are not."""
    space = networks.space
    measured = MeasuredNetworks(
        device=model.device,
        networks=networks,
        codes=space.encode([space.smallest()]),
        latency_ms=np.ones(1),
    )
    found = Measurements(
        table=LatencyTable(device=model.device, base_ms=0.0, rows={}),
        networks=measured,
        again=measured,
        repeatability={"agreeing": 1.0, "median_apart": 0.0, "num_models": 1},
        is_drawn=np.ones(1, dtype=np.bool_),
    )
    with database.begin() as session:
        devices.create(session, model.device, notes="")
        row = measurements.create(
            session, display_name="", labels={}, measured=found, content="", spec={}
        ).row
        measurements.set_model(session, row.id, model, None)


def _bounds(model: LatencyModel, networks: NetworkBlocks) -> list[float]:
    """From tight to loose."""
    rng = np.random.default_rng(1)
    codes = _codes(networks.space, 1000, rng)
    shares = rng.uniform(0.0, 1.0, size=50)
    return [float(bound) for bound in np.quantile(model.predict_ms(networks, codes), shares)]


def _asked(http: httpx.Client, path: str, queries: list[dict[str, Any]]) -> tuple[list[float], int]:
    """Milliseconds of each, and how many found nothing."""
    taken, num_without = [], 0
    for query in queries:
        started = time.perf_counter()
        answer = http.get(path, params=query)
        taken.append(1e3 * (time.perf_counter() - started))
        assert answer.status_code in (200, 404), answer.text
        num_without += answer.status_code == 404
    return taken, num_without


def _interleaved(
    http: httpx.Client,
    database: Database,
    protocol: EvaluationProtocol,
    space: SearchSpace,
    num: int,
) -> tuple[list[float], int]:
    """Queries between which somebody measures."""
    rng, taken, num_without = np.random.default_rng(3), [], 0
    for _ in range(num):
        network = space.sample(rng)
        measured = Evaluation(
            architecture=network,
            checkpoint=protocol.checkpoint,
            split=protocol.split,
            num_images=protocol.num_images,
            calibration=protocol.calibration,
            num_correct=protocol.num_images // 2,
            per_class_correct=(protocol.num_images // 2,),
            per_class_images=(protocol.num_images,),
            correct_bitmap=bytes(protocol.num_images // 8),
            duration_s=1.0,
        )
        with database.begin() as session:
            found = {n: v for n, v in costs(space, network).items() if n in COST_NAMES}
            evaluations.record(
                session, protocol.supernet_id, measured, found, code=packed_code(space, network)
            )
        path = f"/v1/supernets/{protocol.supernet_id}/best"
        times, without = _asked(http, path, [{"device": "additive", "max_latency_ms": "50%"}])
        taken += times
        num_without += without
    return taken, num_without


def _tell(what: str, times_ms: list[float], num_without: int) -> None:
    p50, p95 = statistics.median(times_ms), np.quantile(times_ms, 0.95)
    print(
        f"{what}: p50 {p50:.1f} ms, p95 {p95:.1f} ms, of {len(times_ms)}; {num_without} without a network",
        flush=True,
    )
