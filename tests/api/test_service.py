"""Starting, refusing to start, and going on when something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from pydantic import ValidationError
from sqlalchemy import text

from api import feasibility
from api.__main__ import main
from api.settings import ApiSettings
from nas.client import Client, ServiceUnavailableError
from nas.search.region import FeasibleRegion
from search_spaces import SPACES
from tests.api.conftest import DIGITS, running
from tests.ports import free_port
from tests.search.slow_costs import SlowCosts

ROOT = Path(__file__).resolve().parents[2]

BLOCKING = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {
            'torch', 'ray', 'optuna', 'sklearn', 'pyarrow', 'onnx', 'PIL', 'supernet', 'workers'
        }:
            raise ModuleNotFoundError(f'{name} is blocked')
sys.meta_path.insert(0, Blocker())
from api.__main__ import main
sys.exit(main())
"""


def await_answer(url: str) -> None:
    """A process that starts takes a second, and on a busy machine many."""
    deadline = time.monotonic() + 120
    while True:
        try:
            httpx.get(url, timeout=60)
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_the_service_runs_where_nothing_that_trains_is_installed(postgres_server, database_url, tmp_path):
    port = free_port()
    environment = {
        **os.environ,
        "NAS_DATABASE_URL": postgres_server.url,
        "NAS_ARTIFACT_URL": str(tmp_path),
        "NAS_PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCKING], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        await_answer(f"http://127.0.0.1:{port}/healthz")
        with Client(f"http://127.0.0.1:{port}") as client:
            assert client.version()["api"] == "v1"
            assert client.datasets.create(DIGITS)["state"] == "queued"
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").json() == {"status": "ok"}
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert "Traceback" not in errors, errors


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_an_address_that_others_reach_is_refused(host):
    with pytest.raises(ValidationError, match="no API keys yet"):
        ApiSettings(database_url="", artifact_url="", host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_is_allowed(host):
    assert ApiSettings(database_url="", artifact_url="", host=host).host == host


def test_unusable_settings_are_told_without_a_traceback():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")}
    found = subprocess.run(
        [sys.executable, "-m", "api"],
        cwd=ROOT,
        env={**environment, "NAS_HOST": "0.0.0.0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert "NAS_DATABASE_URL: Field required" in found.stderr
    assert "NAS_HOST" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("url", ["postgresql://user:secret@127.0.0.1:1/nas", "sqlite:///x", "nonsense"])
def test_a_database_that_cannot_be_used_is_told_without_a_traceback(url, monkeypatch, capsys):
    monkeypatch.setenv("NAS_DATABASE_URL", url)
    monkeypatch.setenv("NAS_ARTIFACT_URL", "/nowhere")
    assert main() == 1
    told = capsys.readouterr().err
    assert "database URL" in told
    assert "secret" not in told


def test_a_schema_of_another_version_is_not_ready(http, database):
    with database.begin() as session:
        known = session.scalar(text("SELECT version_num FROM alembic_version"))
        session.execute(text("UPDATE alembic_version SET version_num = 'later'"))
    try:
        response = http.get("/readyz")
        assert (response.status_code, response.json()["type"]) == (503, "/problems/schema-not-current")
        assert http.get("/healthz").status_code == 200
    finally:
        with database.begin() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :known"), {"known": known})


def test_a_defect_tells_nothing_of_the_inside(http, monkeypatch):
    def defect(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr("api.routes.datasets.describe_dataset_detail", defect)
    response = http.post("/v1/datasets", json={"source": DIGITS}, headers={"Idempotency-Key": "k"})
    assert (response.status_code, response.json()["type"]) == (500, "/problems/internal-error")
    assert "secret" not in response.text
    monkeypatch.undo()
    # Nothing was left half done: neither the row nor the key.
    assert http.get("/v1/datasets").json()["items"] == []
    again = http.post("/v1/datasets", json={"source": DIGITS}, headers={"Idempotency-Key": "k"})
    assert again.status_code == 201


def test_a_database_that_is_gone_is_told_and_found_again(
    postgres_server, database_url, tmp_path, monkeypatch
):
    def refuse(*_, **__):
        raise psycopg.OperationalError("connection refused")

    settings = ApiSettings(database_url=postgres_server.url, artifact_url=str(tmp_path), port=0)
    with running(settings) as (server, url), httpx.Client(base_url=url) as http:
        engine = server.app.state.services.database.engine
        with monkeypatch.context() as patched:
            patched.setattr(engine.dialect, "connect", refuse)
            engine.dispose()
            _check_database_is_told(http)
        assert http.get("/readyz").status_code == 200


def _check_database_is_told(http):
    response = http.get("/v1/datasets")
    assert (response.status_code, response.json()["type"]) == (503, "/problems/database-unavailable")
    assert response.headers["retry-after"]
    assert http.get("/readyz").status_code == 503
    assert http.get("/healthz").status_code == 200


def test_a_service_that_does_not_answer_is_told(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with (
        Client("http://127.0.0.1:9") as client,
        pytest.raises(ServiceUnavailableError, match="did not answer after 6 tries"),
    ):
        client.version()


def test_a_create_whose_answer_is_lost_makes_one_resource(client, monkeypatch):
    send = httpx.HTTPTransport.handle_request
    lost = []

    def lose_first(transport, request):
        response = send(transport, request)
        if request.method == "POST" and not lost:
            lost.append(response.read())
            raise httpx.ReadError("the answer is lost")
        return response

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lose_first)
    dataset = client.datasets.create(DIGITS)
    assert len(lost) == 1
    assert [found.id for found in client.datasets.list()] == [dataset.id]


def test_a_certificate_that_takes_long_keeps_nobody_else_waiting(http, supernet, monkeypatch):
    slow = SlowCosts(SPACES["ofa_mobilenetv3"])
    monkeypatch.setattr(
        feasibility,
        "certificate_of",
        lambda services, _, bounds: services.certificates.certify(FeasibleRegion(slow, bounds)),
    )
    body = {"supernet_id": supernet.id, "num_trials": 3, "constraints": {"max_macs": 1.5}}
    num_answered = 0
    with ThreadPoolExecutor(3) as pool:
        started = time.monotonic()
        creating = [pool.submit(http.post, "/v1/searches", json=body) for _ in range(3)]
        while not all(created.done() for created in creating):
            assert http.get("/v1/datasets").status_code == 200
            num_answered += 1
    # What is not refuted within the limit is left to the search itself.
    assert {created.result().status_code for created in creating} == {201}
    assert 1 < time.monotonic() - started < 60
    assert num_answered > 3
