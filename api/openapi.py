"""The OpenAPI document. `python -m api.openapi docs/openapi.json` writes the one that is committed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field

from api.examples import add_examples
from api.problem_types import describe_problem_types
from api.problems import MEDIA_TYPE

_DESCRIPTION = """Every call has an example that works as it stands, but for ids: one such as
`sn_aaaaaaaaaaaaaaaa` stands for any of that prefix, and an `Idempotency-Key` is a new one each time.

Lists come in pages of at most 200 items, newest first: `next_page_token` of one is `page_token` of the next.
Every creating POST takes an `Idempotency-Key`, kept for 24 hours. Every error is a problem (RFC 9457) with a
stable `type`; the schema `Problem` lists them."""


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str
    value: Any = None
    allowed: str | None = None


class Problem(BaseModel):
    """Any error (RFC 9457). Some types have further members."""

    type: str = Field(description=describe_problem_types())
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None


def build_openapi(app: FastAPI) -> dict[str, Any]:
    """The document, made once: FastAPI's, with the one shape of errors in place of its own."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=_DESCRIPTION,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        _describe_problems(document)
        add_examples(document)
        app.openapi_schema = document
    return app.openapi_schema


def _describe_problems(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs") | {"Problem": problem}
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {"description": "A problem.", "content": content}


def main() -> None:
    """Write the document to the file named on the command line."""
    from api.app import create_app
    from api.settings import ApiSettings

    app = create_app(ApiSettings(database_url="", artifact_url=""))
    Path(sys.argv[1]).write_text(render(build_openapi(app)))


def render(document: dict[str, Any]) -> str:
    """The document as it is committed."""
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    main()
