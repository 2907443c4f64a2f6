"""`best` and `frontier` over HTTP, with a million evaluations of one supernet in a scratch database."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
from sqlalchemy import select, update

from bench.best_latency import measure_latency_answers
from nas.costs import COST_NAMES, batch_costs
from nas.dominance import is_matched_by_earlier
from nas.space import SearchSpace
from nas.store import datasets, evaluations, supernets
from nas.store.database import Database, migrate
from nas.store.datasets import DatasetContents
from nas.store.embedded import EmbeddedPostgres
from nas.store.evaluations import EvaluationProtocol
from nas.store.tables import EvaluationRow, JobRow
from nas.trial import Evaluation, Split
from search_spaces import SPACES

NUM_VAL = 5000
NUM_CLASSES = 10
CALIBRATION = "train[:2000]/250"
COPIED = (
    "supernet_id checkpoint architecture_key architecture split num_images calibration num_correct "
    "per_class_correct per_class_images correct_bitmap duration_s is_superseded code " + " ".join(COST_NAMES)
).split()
CONTENTS = DatasetContents(
    fingerprint="f" * 64,
    fingerprint_format=2,
    num_classes=NUM_CLASSES,
    in_channels=3,
    image_height=32,
    image_width=32,
    class_names=[str(label) for label in range(NUM_CLASSES)],
    mean=[0.5] * 3,
    std=[0.25] * 3,
    num_train=45_000,
    num_calibration=2000,
    num_val=NUM_VAL,
    num_test=10_000,
    num_unreadable=0,
    stored_rule="one channel, 8 x 8 pixels",
    given_splits=["train"],
)
QUANTILES = {"loose": (0.8, 1.0), "medium": (0.3, 0.7), "tight": (0.0, 0.001)}
"""Between which quantiles of each cost the bounds are drawn."""


def main(arguments: Sequence[str]) -> None:
    """Fill the database, start the API, ask."""
    parser = argparse.ArgumentParser(prog="bench best")
    parser.add_argument("--evaluations", type=int, default=1_000_000)
    parser.add_argument("--space", default="micro", choices=SPACES)
    parser.add_argument("--requests", type=int, default=200, help="so many of each kind")
    parser.add_argument("--latency-only", action="store_true", help="answers by latency alone")
    options = parser.parse_args(arguments)
    with _scratch_database() as url:
        database = Database(url)
        started = time.perf_counter()
        protocol, costs = _fill(database, SPACES[options.space], options.evaluations)
        with database.session() as session:
            num_candidates = len(evaluations.candidates(session, protocol, {}))
        print(
            f"{options.evaluations:,} evaluations of {options.space}, {num_candidates:,} of them candidates; "
            f"filled in {time.perf_counter() - started:.0f} s"
        )
        if not options.latency_only:
            _measure_reading_all(database, protocol)
            _measure_recording(database, protocol, SPACES[options.space], num=options.requests)
        with _api(url) as (http, pid):
            if not options.latency_only:
                _measure_answers(http, protocol.supernet_id, costs, num=options.requests)
            _wait_for(http, f"/v1/supernets/{protocol.supernet_id}/best")
            measure_latency_answers(
                http,
                database,
                protocol,
                SPACES[options.space],
                num_classes=NUM_CLASSES,
                num=options.requests,
                pid=pid,
            )
        database.dispose()


@contextmanager
def _scratch_database() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder))
        try:
            server.start()
            migrate(server.url)
            yield server.url
        finally:
            server.stop()
            shutil.rmtree(server.folder, ignore_errors=True)
            server.folder.with_suffix(".lock").unlink(missing_ok=True)


@contextmanager
def _api(url: str) -> Iterator[tuple[httpx.Client, int]]:
    """A client, and the process that it asks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    settings = {"NAS_DATABASE_URL": url, "NAS_ARTIFACT_URL": tempfile.gettempdir(), "NAS_PORT": port}
    process = subprocess.Popen(
        [sys.executable, "-m", "api"],
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            yield http, process.pid
    finally:
        process.terminate()
        process.wait()


# Filling


def _fill(
    database: Database, space: SearchSpace, num: int
) -> tuple[EvaluationProtocol, dict[str, np.ndarray]]:
    protocol = _trained_supernet(database, space.name)
    codes = _codes(space, num)
    costs = batch_costs(space, codes, num_classes=NUM_CLASSES, in_channels=3)
    num_correct = _num_correct(costs)
    is_superseded = _is_superseded(num_correct, costs)
    columns = [num_correct, is_superseded, *(costs[name] for name in COST_NAMES)]
    texts = [
        [f'"{decision.name}": {option!r}' for option in decision.options] for decision in space.decisions
    ]
    images = "{" + ",".join([str(NUM_VAL // NUM_CLASSES)] * NUM_CLASSES) + "}"
    bitmap = bytes(NUM_VAL // 8)
    conninfo = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo, options="-c statement_timeout=0") as connection:
        statement = f"COPY evaluations ({', '.join(COPIED)}) FROM STDIN"
        with connection.cursor().copy(statement) as copy:
            for number, (code, *row) in enumerate(
                zip(codes.tolist(), *(c.tolist() for c in columns), strict=True)
            ):
                correct, superseded, *four = row
                described = "{" + ", ".join(t[i] for t, i in zip(texts, code, strict=True)) + "}"
                copy.write_row(
                    [
                        protocol.supernet_id,
                        protocol.checkpoint,
                        # Codes may repeat; each row stands for a network of its own.
                        f"{number:064x}",
                        described.replace("'", '"'),
                        protocol.split,
                        protocol.num_images,
                        protocol.calibration,
                        correct,
                        images,
                        images,
                        bitmap,
                        1.0,
                        superseded,
                        bytes(code),
                        *four,
                    ]
                )
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE evaluations")
    return protocol, costs


def _trained_supernet(database: Database, space: str) -> EvaluationProtocol:
    named: dict[str, Any] = {"display_name": "", "labels": {}, "spec": {}}
    with database.begin() as session:
        dataset = datasets.create(session, source={}, **named).row.id
        datasets.set_contents(session, dataset, CONTENTS)
        supernet = supernets.create(
            session, dataset_id=dataset, search_space=space, recipe={}, seed=0, num_workers=1, **named
        ).row.id
        weights = {"checkpoint": "c" * 64, "weights_uri": "file:///none", "calibration": CALIBRATION}
        supernets.set_weights(session, supernet, **weights)
        session.execute(update(JobRow).values(state="succeeded"))
    return EvaluationProtocol(
        supernet_id=supernet,
        checkpoint="c" * 64,
        split=Split.VAL,
        num_images=NUM_VAL,
        calibration=CALIBRATION,
    )


def _codes(space: SearchSpace, num: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(len(d.options), size=num) for d in space.decisions], axis=1)


def _num_correct(costs: dict[str, np.ndarray]) -> np.ndarray:
    """Accuracy that rises with log MACs and log parameters, ever more slowly, and a point of noise."""
    rng = np.random.default_rng(1)
    macs, params = (_standardised(np.log(costs[name])) for name in ("macs", "params"))
    accuracy = 0.75 + 0.03 * np.tanh(macs) + 0.005 * params + 0.01 * rng.normal(size=len(macs))
    return np.round(np.clip(accuracy, 0, 1) * NUM_VAL).astype(np.int64)


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _is_superseded(num_correct: np.ndarray, costs: dict[str, np.ndarray]) -> np.ndarray:
    """What `evaluations.record` would have marked: best first, an earlier row is no dearer in any cost."""
    order = np.lexsort((np.arange(len(num_correct)), costs["macs"], -num_correct))
    columns = np.stack([costs[name][order] for name in COST_NAMES]).astype(np.float64)
    is_superseded = np.empty(len(order), dtype=bool)
    is_superseded[order] = is_matched_by_earlier(columns)
    return is_superseded


# Measuring


def _measure_recording(
    database: Database, protocol: EvaluationProtocol, space: SearchSpace, *, num: int
) -> None:
    rng = np.random.default_rng(2)
    networks = [space.sample(rng) for _ in range(num)]
    codes = space.encode(networks)
    costs = batch_costs(space, codes, num_classes=NUM_CLASSES, in_channels=3)
    found = zip(networks, _num_correct(costs).tolist(), strict=True)
    rows = [
        (_evaluation(protocol, network, correct), {name: int(costs[name][i]) for name in COST_NAMES})
        for i, (network, correct) in enumerate(found)
    ]

    def record(number: int) -> None:
        with database.begin() as session:
            evaluations.record(session, protocol.supernet_id, *rows[number])

    _print("one more evaluation recorded, its transaction included (no HTTP)", _times_ms(record, num))


def _evaluation(protocol: EvaluationProtocol, network: Any, num_correct: int) -> Evaluation:
    return Evaluation(
        architecture=network,
        checkpoint=protocol.checkpoint,
        split=protocol.split,
        num_images=protocol.num_images,
        calibration=protocol.calibration,
        num_correct=num_correct,
        per_class_correct=(num_correct // NUM_CLASSES,) * NUM_CLASSES,
        per_class_images=(NUM_VAL // NUM_CLASSES,) * NUM_CLASSES,
        correct_bitmap=bytes(NUM_VAL // 8),
        duration_s=1.0,
    )


def _measure_reading_all(database: Database, protocol: EvaluationProtocol) -> None:
    """What an answer costs that reads every evaluation: the reference, without HTTP."""
    columns = [EvaluationRow.id, EvaluationRow.num_correct, *(getattr(EvaluationRow, c) for c in COST_NAMES)]
    query = select(*columns).where(EvaluationRow.supernet_id == protocol.supernet_id)

    def read(_: int) -> None:
        with database.session() as session:
            rows = np.array([tuple(row) for row in session.execute(query)])
        rows[np.lexsort((rows[:, 0], rows[:, 2], -rows[:, 1]))[0]]

    _print("for comparison, every evaluation read (no HTTP)", _times_ms(read, 3))


def _measure_answers(http: httpx.Client, supernet_id: str, costs: dict[str, np.ndarray], *, num: int) -> None:
    path = f"/v1/supernets/{supernet_id}"
    _wait_for(http, f"{path}/best")
    asker = _Asker(http, path, {name: np.sort(values) for name, values in costs.items()}, num)
    for names in (["macs"], ["peak_activation_bytes"], ["macs", "params"], [*COST_NAMES]):
        for kind in QUANTILES:
            print(f"best, {kind} bounds on {', '.join(names)}: ", end="")
            asker.ask("best", kind, names)
    print("best, nothing within the bounds on macs, params: ", end="")
    asker.ask("best", "impossible", ["macs", "params"])
    for objectives in (["macs"], [*COST_NAMES]):
        for kind in QUANTILES:
            print(f"frontier of accuracy, {', '.join(objectives)}, {kind} bound on macs: ", end="")
            asker.ask("frontier", kind, ["macs"], objectives=objectives)


@dataclass(frozen=True)
class _Asker:
    """Asks for the answers of one supernet under bounds drawn at random."""

    http: httpx.Client
    path: str
    ranked: dict[str, np.ndarray]
    """Every network's costs, rising."""
    num: int

    def ask(self, what: str, kind: str, names: Sequence[str], **more: Any) -> None:
        """Print how long the answers take, and how many bounds nothing kept."""
        rng = np.random.default_rng(3)
        asked = [self._bounds(rng, kind, names) | more for _ in range(self.num)]
        statuses = []

        def request(number: int) -> None:
            statuses.append(self.http.get(f"{self.path}/{what}", params=asked[number]).status_code)

        times = _times_ms(request, self.num)
        assert set(statuses) <= {200, 404}, set(statuses)
        _print(f"{statuses.count(404)} of {self.num} without a network", times)

    def _bounds(self, rng: np.random.Generator, kind: str, names: Sequence[str]) -> dict[str, Any]:
        if kind == "impossible":
            return {f"max_{name}": 1 for name in names}
        share = rng.uniform(*QUANTILES[kind])
        return {f"max_{name}": int(np.quantile(self.ranked[name], share)) for name in names}


def _wait_for(http: httpx.Client, path: str) -> None:
    for _ in range(300):
        try:
            http.get(path).raise_for_status()
            return
        except httpx.ConnectError:
            time.sleep(0.2)
    raise RuntimeError("the API did not start within a minute")


def _times_ms(call: Callable[[int], None], num: int) -> list[float]:
    taken = []
    for number in range(num):
        started = time.perf_counter()
        call(number)
        taken.append(1e3 * (time.perf_counter() - started))
    return taken


def _print(what: str, times_ms: list[float]) -> None:
    p50, p95 = statistics.median(times_ms), np.quantile(times_ms, 0.95)
    print(f"{what}: p50 {p50:.1f} ms, p95 {p95:.1f} ms, of {len(times_ms)}", flush=True)
