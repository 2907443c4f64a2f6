"""An example on every call of the OpenAPI document: of each parameter here, of bodies where their models are.

They work as they stand, but for ids: one of the form `sn_aaaaaaaaaaaaaaaa` stands for any of that prefix.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from itertools import islice, product
from typing import Any

FILE = "the file's own bytes"
"""The body of an example upload."""

_ID_LETTERS = "a" * 16

_PARAMETERS: Mapping[str, Any] = {
    "dataset_id": f"ds_{_ID_LETTERS}",
    "supernet_id": f"sn_{_ID_LETTERS}",
    "search_id": f"se_{_ID_LETTERS}",
    "subnet_id": f"sub_{_ID_LETTERS}",
    "upload_id": f"up_{_ID_LETTERS}",
    "batch_id": f"eb_{_ID_LETTERS}",
    "verification_id": f"ve_{_ID_LETTERS}",
    "measurements_id": f"me_{_ID_LETTERS}",
    "work_file_id": f"wf_{_ID_LETTERS}",
    "job_id": f"job_{_ID_LETTERS}",
    "display_name": "pets.zip",
    "page_size": 20,
    "max_rivals": 3,
    "state": ["queued", "running"],
    "fills_gaps": False,
    "search_space": "micro_8",
    "num_classes": 10,
    "in_channels": 3,
    "max_macs": "60%",
    "max_params": "100%",
    "max_size_bytes": "1e9",
    "max_peak_activation_bytes": "1e9",
    "max_latency_ms": "1e9",
    "device": "host",
    "objectives": ["macs", "latency_ms"],
    "accept": "application/json",
    "last-event-id": 0,
    "if-none-match": f'"{"0" * 64}"',
    "idempotency-key": "2f1c7c1e-5d0f-4a53-9a36-6f8f3b6c1d11",
    "content-digest": f"sha-256=:{b64encode(hashlib.sha256(FILE.encode()).digest()).decode()}:",
}

_NAMES = {
    "/v1/devices/{name}": "host",
    "/v1/devices/{name}/latency-table": "host",
    "/v1/devices/{name}/latency-table/gaps": "host",
    "/v1/devices/{name}/measurements": "host",
    "/v1/search-spaces/{name}": "micro_8",
    "/v1/datasets/{dataset_id}/splits/{name}": "val.npz",
    "/v1/subnets/{subnet_id}/artifacts/{name}": "model.py",
    "/v1/supernets/{supernet_id}/artifacts/{name}": "supernet.safetensors",
}
"""What `name` may be depends on what it names."""


def _as_lines(rows: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, rows))


def _table_lines() -> str:
    """A header and one block: it serves no whole space, and is a table all the same."""
    header = {"schema": 1, "device": "host", "runtime": "onnxruntime", "base_ms": 0.05}
    sizes = {"cin": 3, "cout": 16, "h": 32, "w": 32, "k": 3, "stride": 1, "groups": 1}
    block = {"op": "conv", **sizes, "act": "relu", "se": 0, "fused_add": 0, "out_h": 32, "out_w": 32}
    return _as_lines([header, {**block, "p50_ms": 0.11}])


def _probe_lines() -> str:
    """Whole networks alone, in the short notation of `nas_bench_macro`."""
    header = {
        "schema": 1, "device": "host", "runtime": "onnxruntime", "threads": 1, "batch": 1, "dtype": "fp32",
        "tools": {"onnxruntime": "1.31.1"}, "space": "nas_bench_macro", "num_classes": 10, "in_channels": 3,
        "repeatability": {"agreeing": 0.99, "median_apart": 0.01, "num_models": 30},
    }  # fmt: skip
    chosen = ["".join(digits) for digits in islice(product("012", repeat=8), 0, 3000, 100)]
    times = [round(1 + 0.4 * sum(map(int, network)), 2) for network in chosen]
    networks = [
        {"kind": "network", "architecture": network, "p50_ms": milliseconds}
        for network, milliseconds in zip(chosen, times, strict=True)
    ]
    return _as_lines([header, {"kind": "empty", "p50_ms": 0.002}, *networks])


_LINES = {
    "/v1/devices/{name}/latency-table": _table_lines(),
    "/v1/devices/{name}/measurements": _probe_lines(),
}

WITHOUT_EXAMPLE = frozenset({"page_token"})
"""Only an answer can give one that works."""


def add_examples(document: dict[str, Any]) -> None:
    """Put an example at every parameter and every body."""
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                _add_to_parameter(path, parameter)
            for content in operation.get("requestBody", {}).get("content", {}).values():
                _add_to_body(path, content, schemas)


def _add_to_parameter(path: str, parameter: dict[str, Any]) -> None:
    name = parameter["name"]
    if name in WITHOUT_EXAMPLE:
        return
    # A missing one is a defect, and a test meets it.
    parameter["example"] = _NAMES[path] if name == "name" else _PARAMETERS[name]


def _add_to_body(path: str, content: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    """A body's examples are its model's; files and lines have one."""
    reference = content["schema"].get("$ref")
    if reference is None:
        content["example"] = _LINES.get(path, FILE)
        return
    examples = schemas[reference.rpartition("/")[2]]["examples"]
    content["examples"] = {f"example {number}": {"value": value} for number, value in enumerate(examples, 1)}
