"""An example on every call of the OpenAPI document: of each parameter here, of bodies where their models are.

They work as they stand, but for ids: one of the form `sn_aaaaaaaaaaaaaaaa` stands for any of that prefix.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
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
    "job_id": f"job_{_ID_LETTERS}",
    "display_name": "pets.zip",
    "page_size": 20,
    "state": ["queued", "running"],
    "num_classes": 10,
    "in_channels": 3,
    "max_macs": "60%",
    "max_params": "100%",
    "max_size_bytes": "1e9",
    "max_peak_activation_bytes": "1e9",
    "objectives": ["macs", "params"],
    "accept": "application/json",
    "last-event-id": 0,
    "if-none-match": f'"{"0" * 64}"',
    "idempotency-key": "2f1c7c1e-5d0f-4a53-9a36-6f8f3b6c1d11",
    "content-digest": f"sha-256=:{b64encode(hashlib.sha256(FILE.encode()).digest()).decode()}:",
}

_NAMES = {
    "/v1/search-spaces/{name}": "micro_8",
    "/v1/datasets/{dataset_id}/splits/{name}": "val.npz",
    "/v1/subnets/{subnet_id}/artifacts/{name}": "model.py",
    "/v1/supernets/{supernet_id}/artifacts/{name}": "supernet.safetensors",
}
"""What `name` may be depends on what it names."""

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
                _add_to_body(content, schemas)


def _add_to_parameter(path: str, parameter: dict[str, Any]) -> None:
    name = parameter["name"]
    if name in WITHOUT_EXAMPLE:
        return
    # A missing one is a defect, and a test meets it.
    parameter["example"] = _NAMES[path] if name == "name" else _PARAMETERS[name]


def _add_to_body(content: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    """A body's examples are its model's; a file has one."""
    reference = content["schema"].get("$ref")
    if reference is None:
        content["example"] = FILE
        return
    examples = schemas[reference.rpartition("/")[2]]["examples"]
    content["examples"] = {f"example {number}": {"value": value} for number, value in enumerate(examples, 1)}
