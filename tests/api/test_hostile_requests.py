"""What nobody sends by mistake: every answer is a problem that names what is wrong, and none is a defect.

Where the table names a field, the problem has exactly that one, with its value and a message.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

from tests.api.conftest import DIGITS
from tests.api.worker import SPACE

BIG = "9" * 5000
FACE = "%F0%9F%98%80"
ARABIC_THREE = "%D9%A3"
JSON = {"Content-Type": "application/json"}
DATASET = {"source": DIGITS}


def token(*members) -> str:
    return urlsafe_b64encode(json.dumps(members).encode()).decode().rstrip("=")


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + "1" + closing * levels


def check(response, status: int, slug: str, field: str | None = None) -> dict:
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["type"]) == (status, f"/problems/{slug}")
    assert problem["detail"]
    assert len(response.content) < 4000
    if field is not None:
        assert [error["field"] for error in problem["errors"]] == [field], problem
        assert "value" in problem["errors"][0]
        assert problem["errors"][0]["message"]
    return problem


def hostile_tokens(kind: str) -> list[str]:
    """Page tokens for a list that begins all its own with `kind`."""
    moment = "2020-01-01T00:00:00Z"
    return [
        "",
        "A" * 501,
        "\0",
        token(),
        token("nothing", moment, "x"),
        token(kind, "2020-01-01T00:00:00", "x"),
        token(kind, "NaN", "x"),
        token(kind, 5, "x"),
        token(kind, moment, "\0"),
        nested(300),
    ]


def test_a_hostile_page_is_refused(http):
    for path in (
        "datasets",
        "supernets",
        "searches",
        "subnets",
        "evaluation-batches",
        "verifications",
        "jobs",
    ):
        for page_token in hostile_tokens(path):
            response = http.get(f"/v1/{path}", params={"page_token": page_token})
            check(response, 422, "invalid-request", "page_token")
        for size in ("", "-1", "0", "1.5", "1e2", "NaN", BIG, FACE, ARABIC_THREE, "%00", "5&page_size=6"):
            response = http.get(f"/v1/{path}?page_size={size}")
            check(response, 422, "invalid-request", "page_size")
        for name in ("page_size[]", "PAGE_SIZE", "\0", "😀"):
            check(http.get(f"/v1/{path}", params={name: "5"}), 422, "invalid-request", name)


def test_a_hostile_number_in_a_token_is_refused(http, search):
    for number in [True, 1.0, -1, 2**31, 2**63, 10**30, None, "1"]:
        page_token = token(search.id, number)
        response = http.get(f"/v1/searches/{search.id}/trials", params={"page_token": page_token})
        check(response, 422, "invalid-request", "page_token")


def test_a_hostile_event_id_is_refused(http, search):
    for event_id in ["-1", "x", "1.5", "", "NaN", BIG]:
        headers = {"Accept": "application/json", "Last-Event-ID": event_id}
        response = http.get(f"/v1/jobs/{search.job_id}/events", headers=headers)
        check(response, 422, "invalid-request", "last-event-id")


def test_a_hostile_state_is_refused_with_those_there_are(http):
    for query, field in [
        ("state=", "state.0"),
        ("state=%00", "state.0"),
        ("state=queued&state=QUEUED", "state.1"),
        (f"state={BIG}", "state.0"),
    ]:
        problem = check(http.get(f"/v1/jobs?{query}"), 422, "invalid-request", field)
        assert "'succeeded'" in problem["errors"][0]["allowed"]


def test_a_hostile_filter_is_refused(http):
    for path in ["searches", "subnets", "evaluation-batches", "verifications"]:
        for value in ["", "%00", "sn_", FACE, "sn_" + "a" * 65, "sn_a&supernet_id=sn_b", "sn_a%0A"]:
            check(http.get(f"/v1/{path}?supernet_id={value}"), 422, "invalid-request", "supernet_id")


def test_a_hostile_bound_is_refused(http, supernet):
    for where in ["best", "frontier"]:
        for bound in [
            "",
            "-1",
            "-0",
            "-1e-300",
            "NaN",
            "Infinity",
            "-inf",
            "1e400",
            "9" * 41,
            "1_000",
            "0x10",
            ARABIC_THREE,
            f"{ARABIC_THREE}%25",
            "true",
            "null",
            "[1]",
            "%00",
            FACE,
            "%25",
            ".%25",
            "-5%25",
            "0%25",
            "100.1%25",
            "1e1%25",
            "1&max_macs=2",
        ]:
            response = http.get(f"/v1/supernets/{supernet.id}/{where}?max_macs={bound}")
            check(response, 422, "invalid-request", "max_macs")


def test_hostile_objectives_are_refused(http, supernet):
    for query in [
        "objectives=",
        "objectives=latency_ms",
        "objectives=%00",
        f"objectives={'x' * 4000}",
        "objectives=macs&objectives=macs",
        "objectives=accuracy&objectives=accuracy",
        "&".join(["objectives=macs"] * 9),
    ]:
        response = http.get(f"/v1/supernets/{supernet.id}/frontier?{query}")
        check(response, 422, "invalid-request", "objectives")


def test_a_hostile_number_for_a_space_is_refused(http):
    for name in ["num_classes", "in_channels"]:
        for value in ["", "0", "-1", "1.5", "NaN", BIG, ARABIC_THREE, "1&{name}=2", "%00"]:
            value = value.format(name=name)
            for path in ("/v1/search-spaces", "/v1/search-spaces/micro"):
                check(http.get(f"{path}?{name}={value}"), 422, "invalid-request", name)


def test_a_hostile_name_names_nothing(http):
    for name in [
        "%00",
        "%0A",
        "x%0A",
        "%2e%2e",
        "%2F",
        "é",
        "%FF",
        "sn_%20",
        "'; DROP TABLE jobs; --",
        "x" * 300,
        FACE,
        "-1",
        "{}",
    ]:
        for kind in (
            "datasets",
            "supernets",
            "searches",
            "subnets",
            "evaluation-batches",
            "verifications",
            "jobs",
            "search-spaces",
        ):
            check(http.get(f"/v1/{kind}/{name}"), 404, "not-found")
        for below in (
            "supernets/{}/best",
            "supernets/{}/evaluations",
            "searches/{}/pareto",
            "subnets/{}/artifacts",
            "evaluation-batches/{}/networks",
            "verifications/{}/networks",
            "verifications/{}/runs",
            "searches/{}/finalists",
            "jobs/{}/events",
        ):
            check(http.get(f"/v1/{below.format(name)}"), 404, "not-found")
        check(http.post(f"/v1/jobs/{name}/cancel"), 404, "not-found")


def test_a_hostile_body_is_no_json(http):
    for path in [
        "datasets",
        "supernets",
        "searches",
        "subnets",
        "supernets/sn_x/evaluations",
        "verifications",
    ]:
        for body in [
            nested(33),
            nested(900),
            nested(200_000),
            nested(33, '{"a":', "}"),
            nested(990, '{"a":', "}"),
            '{"labels": ' + nested(40) + "}",
            '{"a": ' + BIG + "}",
            '{"a": NaN}',
            '{"a": [Infinity]}',
            '{"a": -1e400}',
            '{"a": "\\u0000"}',
            '{"\\ud800": 1}',
            '{"a": "\x00"}',
            '{"a": "\x1f"}',
            '{"a": 1, "a": 1}',
            "\ufeff{}",
            "{} {}",
            "{'a': 1}",
            '{"a": 1,}',
            "{" + '"a": ' * 3,
            " ",
        ]:
            check(http.post(f"/v1/{path}", content=body.encode(), headers=JSON), 422, "invalid-json")


def test_a_body_that_is_no_object_is_refused(http):
    for path in ["datasets", "supernets", "searches", "subnets", "supernets/sn_x/evaluations"]:
        for body in ["", "[]", "5", '"x"', "null", nested(32)]:
            check(http.post(f"/v1/{path}", content=body.encode(), headers=JSON), 422, "invalid-request")


def test_a_hostile_media_type_is_refused(http):
    for media_type in [
        "",
        "text/json",
        "application/jsonx",
        "application/x-www-form-urlencoded",
        "application/json, text/plain",
        "a" * 5000,
    ]:
        response = http.post("/v1/datasets", json=DATASET, headers={"Content-Type": media_type})
        check(response, 415, "unsupported-media-type")


def test_json_is_utf_8_whatever_the_header_says(http):
    for encoding in ["utf-16", "latin-1"]:
        body = json.dumps({**DATASET, "display_name": "é"}, ensure_ascii=False).encode(encoding)
        headers = {"Content-Type": f"application/json; charset={encoding}"}
        check(http.post("/v1/datasets", content=body, headers=headers), 422, "invalid-json")


def test_a_hostile_data_set_is_refused(http):
    for fields, field in [
        ({"display_name": None}, "display_name"),
        ({"labels": None}, "labels"),
        ({"labels": {"": ""}}, "labels."),
        ({"labels": {"é": ""}}, "labels.é"),
        ({"labels": {"a\n": ""}}, "labels.a\n"),
        ({"labels": {"a" * 64: ""}}, "labels." + "a" * 64),
        ({"labels": {"a": "x" * 257}}, "labels.a"),
        ({"labels": {str(number): "" for number in range(65)}}, "labels"),
        ({"split": None}, "split"),
        ({"split": {"seed": 2**32}}, "split.seed"),
        ({"split": {"seed": 10**400}}, "split.seed"),
        ({"split": {"val_images_wanted": 1e3}}, "split.val_images_wanted"),
        ({"source": {"kind": "parquet", "path": "x" * 4097}}, "source.path"),
        ({"source": {"kind": ["parquet"], "path": "x"}}, "source.kind"),
        ({"source": {"kind": {"a": 1}}}, "source.kind"),
        ({"source": {"kind": 10**400}}, "source.kind"),
    ]:
        check(http.post("/v1/datasets", json={**DATASET, **fields}), 422, "invalid-request", field)


def test_a_hostile_supernet_is_refused(http):
    for fields, field in [
        ({"dataset_id": 5}, "dataset_id"),
        ({"dataset_id": "ds_a\n"}, "dataset_id"),
        ({"dataset_id": "ds_" + "a" * 65}, "dataset_id"),
        ({"search_space": ["micro"]}, "search_space"),
        ({"search_space": "x" * 201}, "search_space"),
        ({"num_workers": 0}, "num_workers"),
        ({"num_workers": True}, "num_workers"),
        ({"num_workers": 10**400}, "num_workers"),
        ({"seed": -1}, "seed"),
        ({"recipe": []}, "recipe"),
        ({"recipe": {"epochs": 10**400}}, "recipe.epochs"),
        ({"recipe": {"nothing": 1}}, "recipe.nothing"),
    ]:
        body = {"dataset_id": "ds_a", "search_space": "micro", **fields}
        check(http.post("/v1/supernets", json=body), 422, "invalid-request", field)


def test_a_hostile_search_is_refused(http, supernet):
    for fields, field in [
        ({"num_trials": 0}, "num_trials"),
        ({"num_trials": 1.0}, "num_trials"),
        ({"num_trials": 10**400}, "num_trials"),
        ({"objectives": []}, "objectives"),
        ({"objectives": "accuracy"}, "objectives"),
        ({"objectives": ["accuracy", "accuracy"]}, "objectives"),
        ({"objectives": [["accuracy"]]}, "objectives.0"),
        ({"proposer": "grid"}, "proposer"),
        ({"constraints": None}, "constraints"),
        ({"constraints": {"max_macs": -0.5}}, "constraints.max_macs"),
        ({"constraints": {"max_macs": {"a": 1}}}, "constraints.max_macs"),
        ({"constraints": {"max_macs": 10**400}}, "constraints.max_macs"),
        ({"constraints": {"max_macs": "\u0663%"}}, "constraints.max_macs"),
        ({"constraints": {"max_macs": "0%"}}, "constraints.max_macs"),
        ({"constraints": {"macs": 5}}, "constraints.macs"),
    ]:
        body = {"supernet_id": supernet.id, "num_trials": 3, **fields}
        check(http.post("/v1/searches", json=body), 422, "invalid-request", field)


def test_a_bound_next_to_nothing_is_infeasible(http, search):
    for bound in [0, 5e-324, 1e-300]:
        body = {"supernet_id": search["supernet_id"], "num_trials": 3, "constraints": {"max_macs": bound}}
        check(http.post("/v1/searches", json=body), 422, "infeasible-constraints", "constraints.max_macs")
        response = http.get(f"/v1/supernets/{search['supernet_id']}/best", params={"max_macs": bound})
        assert response.status_code == 404
        assert response.json()["type"] == "/problems/no-network-within-bounds"


def test_a_hostile_architecture_is_unknown(http, supernet):
    for architecture in [
        {},
        "",
        "x" * 100_000,
        nested(3000),
        nested(3000, '{"a":', "}"),
        "NaN",
        BIG,
        "[1, 2",
        {"r": 10**300},
        {"stage1.depth": [1]},
        {"stage1.depth": True},
        {"ks": nested(20)},
        {"ks": [1e308], "e": [], "d": [], "r": 8},
        {"ks": None, "e": {}, "d": "x", "r": []},
        {"\n": 1},
    ]:
        body = {"supernet_id": supernet.id, "architecture": architecture}
        check(http.post("/v1/subnets", json=body), 422, "unknown-architecture", "architecture")


def test_a_hostile_network_of_a_batch_is_unknown_by_its_place(http, supernet):
    known = SPACE.smallest().to_json()
    for architecture in [{}, "", "x" * 100_000, nested(3000), BIG, {"r": 10**300}, {"ks": None}, {"\n": 1}]:
        body = {"architectures": [known, architecture, {}]}
        response = http.post(f"/v1/supernets/{supernet.id}/evaluations", json=body)
        check(response, 422, "unknown-architecture", "architectures.1")
    assert http.get("/v1/evaluation-batches").json()["items"] == []


def test_a_hostile_batch_is_refused(http, supernet):
    known = SPACE.smallest().to_json()
    for fields, field in [
        ({"architectures": []}, "architectures"),
        ({"architectures": {}}, "architectures"),
        ({"architectures": None}, "architectures"),
        ({"architectures": "[]"}, "architectures"),
        ({"architectures": [known] * 1001}, "architectures"),
        ({"constraints": None}, "constraints"),
        ({"constraints": {"max_macs": "0%"}}, "constraints.max_macs"),
        ({"constraints": {"max_macs": 10**400}}, "constraints.max_macs"),
        ({"supernet_id": supernet.id}, "supernet_id"),
        ({"labels": {"": ""}}, "labels."),
    ]:
        response = http.post(
            f"/v1/supernets/{supernet.id}/evaluations", json={"architectures": [known], **fields}
        )
        check(response, 422, "invalid-request", field)
    for number in [5, True, None, [known]]:
        response = http.post(
            f"/v1/supernets/{supernet.id}/evaluations", json={"architectures": [known, number]}
        )
        problem = check(response, 422, "invalid-request")
        assert {error["field"] for error in problem["errors"]} == {"architectures.1"}
    body = json.dumps({"architectures": ["x" * (4 << 20)]})
    response = http.post(f"/v1/supernets/{supernet.id}/evaluations", content=body, headers=JSON)
    check(response, 413, "body-too-large")
    assert http.get("/v1/evaluation-batches").json()["items"] == []


def test_a_hostile_token_of_a_batch_or_of_evaluations_is_refused(http, batch):
    supernet = batch["supernet_id"]
    for number in [True, 1.0, -1, 2**63, 10**30, None, "1"]:
        for path, kind in [
            (f"evaluation-batches/{batch.id}/networks", batch.id),
            (f"supernets/{supernet}/evaluations", f"{supernet}/evaluations"),
        ]:
            response = http.get(f"/v1/{path}", params={"page_token": token(kind, number)})
            check(response, 422, "invalid-request", "page_token")


def test_a_hostile_trial_is_refused(http, search):
    for number in [-1, 2**31, 10**400, 1.0, True, "0"]:
        body = {"search_id": search.id, "trial_number": number}
        check(http.post("/v1/subnets", json=body), 422, "invalid-request", "trial_number")


def test_a_host_of_another_name_is_refused(http):
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1@evil.example", "localhost:x", ""]:
        check(http.get("/v1/datasets", headers={"Host": host}), 400, "invalid-host")


def test_every_name_of_this_machine_is_served(http):
    for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080"]:
        assert http.get("/v1/datasets", headers={"Host": host}).status_code == 200


def test_a_hostile_method_is_not_possible(http):
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"]:
        check(http.request(method, "/v1/datasets"), 405, "method-not-allowed")
