"""Errors, bodies, queries, keys and pages: what holds for every call."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from nas.store import idempotency
from tests.api.conftest import DIGITS

DATASETS = "/v1/datasets"
JSON = {"Content-Type": "application/json"}
BODY = {"source": DIGITS}


def problem_of(response, status: int, slug: str) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["type"]) == (status, f"/problems/{slug}")
    assert problem["title"]
    assert problem["detail"]
    return problem


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/datasets/",
        "/v1/datasets/ds_nowhere",
        "/v1/datasets/%00",
        "/v1/datasets/ds_%F0%9F%98%80",
        "/v1/jobs/job_x/events",
        "/v1/searches/se_x/trials",
        "/v1/subnets/sub_x/artifacts/..%2F..%2Fetc%2Fpasswd",
        "/v1/supernets/sn_x/best",
        f"/v1/supernets/{'x' * 5000}",
    ],
)
def test_what_does_not_exist_is_not_found(http, path):
    problem_of(http.get(path), 404, "not-found")


def test_a_method_that_is_not_possible_names_those_that_are(http):
    response = http.put(DATASETS, json={})
    problem_of(response, 405, "method-not-allowed")
    assert response.headers["allow"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "source"),
        ({"source": None}, "source"),
        ({"source": []}, "source"),
        ({"source": {}}, "source.kind"),
        ({"source": {"kind": "zip"}}, "source.kind"),
        ({"source": {"kind": "folder"}}, "source.path"),
        ({"source": {"kind": "folder", "path": "/x", "train": "/y"}}, "source.train"),
        ({"source": {"kind": "npz", "path": ["/x"]}}, "source.path"),
        ({"source": {"kind": "huggingface", "path": "/x", "image_column": ""}}, "source.image_column"),
        ({"source": {"kind": "archive"}}, "source"),
        ({"source": {"kind": "archive", "path": "/x", "upload_id": "up_1"}}, "source"),
        ({"source": {"kind": "archive", "upload_id": "/etc/passwd"}}, "source.upload_id"),
        ({"source": {"kind": "archive", "path": "/x", "skip_unreadable": "no"}}, "source.skip_unreadable"),
        ({"source": {"kind": "bundled", "name": "mnist"}}, "source.name"),
        ({"source": {**DIGITS, "path": "/x"}}, "source.path"),
        ({"source": {"kind": "parquet"}}, "source"),
        ({"source": {"kind": "parquet", "path": "/x", "train": "/y"}}, "source"),
        ({"source": {"kind": "parquet", "path": "/x", "test": "/y"}}, "source"),
        ({"source": {"kind": "parquet", "path": ""}}, "source.path"),
        ({**BODY, "unknown": 1}, "unknown"),
        ({**BODY, "display_name": 5}, "display_name"),
        ({**BODY, "display_name": "x" * 201}, "display_name"),
        ({**BODY, "labels": {"team": 5}}, "labels.team"),
        ({**BODY, "labels": []}, "labels"),
        ({**BODY, "split": {"val_fraction": 0}}, "split.val_fraction"),
        ({**BODY, "split": {"val_fraction": "0.1"}}, "split.val_fraction"),
        ({**BODY, "split": {"val_fraction": True}}, "split.val_fraction"),
        ({**BODY, "split": {"seed": -1}}, "split.seed"),
        ({**BODY, "split": {"seed": 10**30}}, "split.seed"),
        ({**BODY, "split": {"seed": 1.5}}, "split.seed"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(http, body, field):
    problem = problem_of(http.post(DATASETS, json=body), 422, "invalid-request")
    assert [error["field"] for error in problem["errors"]] == [field]
    assert problem["errors"][0]["message"]
    assert "Traceback" not in problem["detail"]


def test_a_closed_list_is_told(http):
    body = {"source": {"kind": "bundled", "name": "mnist"}}
    error = http.post(DATASETS, json=body).json()["errors"][0]
    assert (error["value"], error["allowed"]) == ("mnist", "'digits'")


@pytest.mark.parametrize("body", [b"[]", b"1", b'"text"', b"null", b"true"])
def test_json_that_is_no_object_is_refused(http, body):
    problem_of(http.post(DATASETS, content=body, headers=JSON), 422, "invalid-request")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "Expecting"),
        (b"\xff\xfe", "decode"),
        (b'{"display_name": NaN}', "NaN is no JSON number"),
        (b'{"display_name": -Infinity}', "-Infinity is no JSON number"),
        (b'{"display_name": 1e999}', "too large"),
        (b'{"display_name": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"display_name": "\\u0000"}', "NUL"),
        (b'{"labels": {"\\ud800": "x"}}', "surrogate"),
        (b'{"labels": {}, "labels": {}}', "'labels' is given twice"),
        (b"[" * 500_000, "nested too deeply"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else None,
)
def test_what_is_no_plain_json_is_refused(http, body, reason):
    assert (
        reason in problem_of(http.post(DATASETS, content=body, headers=JSON), 422, "invalid-json")["detail"]
    )


def test_a_surrogate_pair_is_a_character(http):
    body = json.dumps({**BODY, "display_name": "😀"}).encode()
    assert b"\\ud83d\\ude00" in body
    assert http.post(DATASETS, content=body, headers=JSON).json()["display_name"] == "😀"


@pytest.mark.parametrize("media_type", [None, "text/plain", "multipart/form-data; boundary=x", "nonsense"])
def test_a_body_must_say_that_it_is_json(http, media_type):
    headers = {"Content-Type": media_type} if media_type else {}
    response = http.post(DATASETS, content=json.dumps(BODY).encode(), headers=headers)
    problem_of(response, 415, "unsupported-media-type")


def test_a_missing_body_is_told(http):
    problem_of(http.post(DATASETS, headers=JSON), 422, "invalid-request")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_huge_body_is_refused(http, is_chunked):
    chunks = [b" " * 65536] * 40
    content = iter(chunks) if is_chunked else b"".join(chunks)
    problem_of(http.post(DATASETS, content=content, headers=JSON), 413, "body-too-large")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page_size=0", "page_size"),
        ("page_size=201", "page_size"),
        ("page_size=ten", "page_size"),
        ("page_token=nonsense", "page_token"),
        ("page_token=", "page_token"),
        ("page_token=%00%F0%9F%98%80", "page_token"),
        ("page_token=WyJkYXRhc2V0cyIsICIyMDIwIiwgMV0", "page_token"),
        ("page_tokens=x", "page_tokens"),
        ("%00=1", "\0"),
    ],
)
def test_a_wrong_query_is_refused(http, query, field):
    problem = problem_of(http.get(f"{DATASETS}?{query}"), 422, "invalid-request")
    assert problem["errors"][0]["field"] == field


@pytest.mark.parametrize("bound", ["-1", "nan", "inf", "x", "0%", "101%", "1e999", "%F0%9F%98%80"])
def test_an_impossible_bound_is_refused_in_a_query(http, supernet, bound):
    response = http.get(
        f"/v1/supernets/{supernet.id}/frontier", params=f"max_macs={bound}".replace("%%", "%25")
    )
    assert problem_of(response, 422, "invalid-request")["errors"][0]["field"] == "max_macs"


@pytest.mark.parametrize("bound", [-1, True, None, [], "x", "0%", "101%", "60 percent", 10**400])
def test_an_impossible_bound_is_refused_in_a_body(http, supernet, bound):
    body = {"supernet_id": supernet.id, "num_trials": 1, "constraints": {"max_macs": bound, "max_latency": 1}}
    problem = problem_of(http.post("/v1/searches", json=body), 422, "invalid-request")
    fields = {error["field"] for error in problem["errors"]}
    # Null is no bound, as if it were left out; the percentages' range is told once all names are right.
    assert fields - {"constraints.max_macs"} == {"constraints.max_latency"}


def test_huge_bounds_let_everything_through(http, search):
    path = f"/v1/supernets/{search['supernet_id']}/frontier"
    found = http.get(path, params={"max_macs": "9" * 39, "max_params": "1e300"})
    assert found.json()["num_evaluations"] == 5


@pytest.mark.parametrize(
    ("path", "body", "slug"),
    [
        ("/v1/supernets", {"dataset_id": "ds_x", "search_space": "micro"}, "not-found"),
        ("/v1/searches", {"supernet_id": "sn_x", "num_trials": 3}, "not-found"),
        ("/v1/subnets", {"supernet_id": "sn_x", "architecture": {}}, "not-found"),
        ("/v1/subnets", {"search_id": "se_x", "trial_number": 0}, "not-found"),
    ],
)
def test_a_request_that_names_nothing_is_told_what_is_missing(http, path, body, slug):
    assert "_x" in problem_of(http.post(path, json=body), 404, slug)["detail"]


def test_an_unknown_space_is_told_those_there_are(http):
    body = {"dataset_id": "ds_x", "search_space": "huge"}
    assert (
        "micro_8" in problem_of(http.post("/v1/supernets", json=body), 422, "unknown-search-space")["detail"]
    )


# Idempotency keys


def test_a_creating_request_answers_where_the_resource_is(http):
    response = http.post(DATASETS, json=BODY)
    assert response.status_code == 201
    created = response.json()
    assert response.headers["location"] == created["links"]["self"] == f"{DATASETS}/{created['id']}"
    assert http.get(response.headers["location"]).json() == created


def test_the_same_key_and_body_replay_the_first_answer(http):
    headers = {"Idempotency-Key": "once"}
    first = http.post(DATASETS, json={**BODY, "labels": {"a": "1", "b": "2"}}, headers=headers)
    # The order of names does not make another body.
    again = http.post(DATASETS, json={"labels": {"b": "2", "a": "1"}, **BODY}, headers=headers)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert len(http.get(DATASETS).json()["items"]) == 1


def test_the_same_key_with_another_body_is_a_conflict(http):
    headers = {"Idempotency-Key": "once"}
    http.post(DATASETS, json=BODY, headers=headers)
    other = http.post(DATASETS, json={**BODY, "display_name": "other"}, headers=headers)
    problem_of(other, 422, "idempotency-conflict")


def test_a_key_in_flight_is_told_so(http, database):
    digest = []
    reserve = idempotency.reserve

    def idempotency_spy(*args, body_digest, **named):
        digest.append(body_digest)
        return reserve(*args, body_digest=body_digest, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(idempotency, "reserve", idempotency_spy)
        http.post(DATASETS, json=BODY, headers={"Idempotency-Key": "first"})
    with database.begin() as session:
        idempotency.reserve(session, owner="local", key="second", body_digest=digest[0])
    response = http.post(DATASETS, json=BODY, headers={"Idempotency-Key": "second"})
    problem_of(response, 409, "idempotency-in-flight")
    assert response.headers["retry-after"] == "1"


def test_a_refused_request_leaves_its_key_free(http):
    headers = {"Idempotency-Key": "again"}
    wrong = {"dataset_id": "ds_x", "search_space": "micro"}
    problem_of(http.post("/v1/supernets", json=wrong, headers=headers), 404, "not-found")
    right = {**wrong, "dataset_id": http.post(DATASETS, json=BODY).json()["id"]}
    assert http.post("/v1/supernets", json=right, headers=headers).status_code == 201


def test_many_at_once_with_one_key_create_one_resource(http):
    def post(_):
        return http.post(DATASETS, json=BODY, headers={"Idempotency-Key": "race"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(24)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert len(http.get(DATASETS).json()["items"]) == 1


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "schl\u00fcssel"])
def test_a_malformed_key_is_refused(http, key):
    response = http.post(DATASETS, json=BODY, headers={"Idempotency-Key": key.encode("latin-1")})
    problem_of(response, 422, "invalid-request")


# Pages


def test_pages_show_every_resource_once_newest_first(http):
    made = [http.post(DATASETS, json=BODY).json()["id"] for _ in range(5)]
    seen, params = [], {"page_size": 2}
    while True:
        page = http.get(DATASETS, params=params).json()
        assert len(page["items"]) <= 2
        seen += [dataset["id"] for dataset in page["items"]]
        # What comes later does not shift the pages.
        http.post(DATASETS, json=BODY)
        if page["next_page_token"] is None:
            break
        params["page_token"] = page["next_page_token"]
    assert seen == made[::-1]


def test_a_token_of_another_list_is_refused(http):
    for _ in range(2):
        http.post(DATASETS, json=BODY)
    token = http.get(DATASETS, params={"page_size": 1}).json()["next_page_token"]
    problem_of(http.get("/v1/jobs", params={"page_token": token}), 422, "invalid-request")


# ETags


def test_an_unchanged_frontier_is_not_sent_again(http, search, client, worker):
    for path in (f"/v1/searches/{search.id}/pareto", f"/v1/supernets/{search['supernet_id']}/frontier"):
        first = http.get(path)
        etag = first.headers["etag"]
        held = http.get(path, headers={"If-None-Match": f'"other", W/{etag}'})
        assert (held.status_code, held.content, held.headers["etag"]) == (304, b"", etag)
        assert http.get(path, headers={"If-None-Match": '"other"'}).content == first.content


# Health


def test_health_readiness_and_version(http):
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ok"}
    assert set(http.get("/version").json()) == {"version", "api"}
    problem_of(http.get("/healthz?verbose=1"), 422, "invalid-request")
