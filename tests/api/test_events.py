"""Events of a job, as a stream and as pages."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

import api.event_stream
from api.settings import ApiSettings
from nas.client import Client
from nas.client.events import parse_events
from nas.job import JobKind
from tests.api.conftest import DIGITS, running


def path_of(resource) -> str:
    return resource["links"]["events"]


def test_a_stream_ends_with_its_job(client, worker):
    dataset = client.datasets.create(DIGITS)
    later = threading.Thread(target=lambda: (time.sleep(0.3), worker.import_dataset()))
    later.start()
    events = list(dataset.events())
    later.join()
    assert [(event.kind, event.payload.get("state")) for event in events] == [
        ("state", "queued"),
        ("state", "running"),
        ("progress", None),
        ("state", "succeeded"),
    ]
    assert [event.id for event in events] == sorted({event.id for event in events})


def test_a_stream_goes_on_after_the_last_event_seen(client, http, worker):
    dataset = client.datasets.create(DIGITS)
    worker.import_dataset()
    events = list(client.jobs.events(dataset.job_id))
    for seen in range(len(events)):
        headers = {"Last-Event-ID": str(events[seen].id)}
        response = http.get(path_of(dataset), headers=headers)
        assert response.headers["content-type"].startswith("text/event-stream")
        assert list(parse_events(response.text.splitlines())) == events[seen + 1 :]
    assert list(dataset.events(after_id=events[-1].id)) == []


def test_events_come_as_pages_when_json_is_asked_for(client, http, worker):
    dataset = client.datasets.create(DIGITS)
    worker.import_dataset()
    seen, params = [], {"page_size": 3}
    while True:
        page = http.get(path_of(dataset), params=params, headers={"Accept": "application/json"}).json()
        seen += [event["id"] for event in page["items"]]
        if page["next_page_token"] is None:
            break
        params["page_token"] = page["next_page_token"]
    assert seen == [event.id for event in dataset.events()]


def test_a_quiet_stream_is_kept_alive_by_comments(client, http, monkeypatch):
    assert api.event_stream.COMMENT_EVERY_S == 15
    monkeypatch.setattr(api.event_stream, "COMMENT_EVERY_S", 0.1)
    monkeypatch.setattr(api.event_stream, "POLL_S", 0.05)
    dataset = client.datasets.create(DIGITS)
    with http.stream("GET", path_of(dataset)) as response:
        lines = response.iter_lines()
        comments = [line for line, _ in zip(lines, range(30), strict=False) if line.startswith(":")]
    assert comments.count(": still here") >= 2


@pytest.mark.parametrize("last", ["-1", "x", "1.5", "9" * 30])
def test_a_malformed_last_event_id_is_refused(client, http, last):
    dataset = client.datasets.create(DIGITS)
    response = http.get(path_of(dataset), headers={"Last-Event-ID": last})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "last-event-id"


def test_the_client_reads_on_over_a_restart_of_the_service(postgres_server, database_url, worker, tmp_path):
    """The service stops at once though a stream is open, and no event is lost or told twice."""
    settings = ApiSettings(database_url=postgres_server.url, artifact_url=str(tmp_path), port=0)
    with running(settings) as (_, url):
        port = httpx.URL(url).port
        client = Client(url)
        events = client.datasets.create(DIGITS).events()
        first = next(events)
        started = time.monotonic()
    assert time.monotonic() - started < 20
    with running(settings.model_copy(update={"port": port})):
        worker.import_dataset()
        rest = list(events)
    client.close()
    assert rest[-1].is_terminal
    assert [event.id for event in [first, *rest]] == sorted({event.id for event in [first, *rest]})


def test_a_stream_tells_why_a_job_failed(client, worker):
    dataset = client.datasets.create(DIGITS)
    worker.fail(JobKind.IMPORT_DATASET, "broken images")
    assert list(dataset.events())[-1].payload["error"] == "broken images"
