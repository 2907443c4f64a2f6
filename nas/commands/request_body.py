"""Bodies of creating requests: read from a file, changed by options, checked by the service."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any

import click
import yaml

from nas.commands.exits import UsageError

_MAX_BYTES = 16 << 20
"""No body is this long; a data set given by mistake is."""

Body = dict[str, Any]


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml tells no types
    """YAML 1.2's core values: 1e-3 is a number, `on` and 2024-01-01 are texts, no key stands twice."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - yaml's own way to be told

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """As yaml does, but without a silent winner among equal keys."""
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key stands twice", node.start_mark)
        if unnamed := next((key for key in found if not isinstance(key, str)), None):
            problem = f"the key {unnamed!r} is no text; quote it"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return found


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    # In this order: what is an integer is no float.
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(loader.construct_scalar(node)))


def parse_value(text: str) -> Any:
    """The value that YAML or JSON reads in the text; UsageError where it is neither."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(_one_line(error)) from error


def read_body(path: str) -> Body:
    """The mapping in the file, `-` for stdin."""
    body = read_document(path)
    if not isinstance(body, dict):
        raise UsageError(
            f"{path}: {kind_of(body)} instead of a mapping of fields, such as 'display_name: first'"
        )
    return body


def read_document(path: str) -> Any:
    """What the file holds, `-` for stdin: JSON if it begins like it, else YAML."""
    try:
        with click.open_file(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); correct the path, or give - for stdin"
        ) from error
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{path}: longer than {_MAX_BYTES:,} bytes; it is to hold a request, not data")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    try:
        is_json = text.lstrip().startswith(("{", "[")) and path.endswith(".json")
        return json.loads(text) if is_json else parse_value(text)
    except (ValueError, RecursionError, UsageError) as error:
        raise UsageError(f"{path}: {error}; write the request's body as YAML or JSON") from error


def put(body: Body, field: str, value: Any) -> None:
    """Set the field, dotted where it lies within another, such as recipe.epochs."""
    *outer, last = field.split(".")
    place = body
    for name in outer:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UsageError(f"{name} is {kind_of(inner)}, so {field} cannot be set in it; correct the file")
        place = inner
    place[last] = value


def with_body(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Gives a creating command the `body` made of -f, --set, --name and --label, in this order."""

    @click.option(
        "-f",
        "--file",
        "body_file",
        metavar="FILE",
        help="The request's body as YAML or JSON, - for stdin; other options override it.",
    )
    @click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="FIELD=VALUE",
        help="Any field of the body, such as --set recipe.epochs=10; repeat it for several.",
    )
    @_with_name_options
    @wraps(command)
    def run(
        *args: Any,
        body_file: str | None,
        assignments: tuple[str, ...],
        name: str | None,
        labels: tuple[str, ...],
        **options: Any,
    ) -> int | None:
        body = {} if body_file is None else read_body(body_file)
        for field, text in _pairs(assignments, "--set", "recipe.epochs=10"):
            put(body, field, parse_value(text))
        _put_names(body, name, labels)
        return command(*args, body=body, **options)

    return run


def with_names(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Gives a creating command, which reads its own file, the `body` made of --name and --label."""

    @_with_name_options
    @wraps(command)
    def run(*args: Any, name: str | None, labels: tuple[str, ...], **options: Any) -> int | None:
        body: Body = {}
        _put_names(body, name, labels)
        return command(*args, body=body, **options)

    return run


def _with_name_options(command: Callable[..., int | None]) -> Callable[..., int | None]:
    labels = click.option(
        "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Repeat it for several."
    )
    return click.option("--name", help="display_name: for people.")(labels(command))


def _put_names(body: Body, name: str | None, labels: tuple[str, ...]) -> None:
    if name is not None:
        body["display_name"] = name
    for key, value in _pairs(labels, "--label", "team=vision"):
        labelled = body.setdefault("labels", {})
        if not isinstance(labelled, dict):
            raise UsageError(f"labels is {kind_of(labelled)} instead of a mapping; correct the file")
        labelled[key] = value


def put_given(body: Body, values: Mapping[str, Any]) -> None:
    """Set the fields whose values are not None."""
    for field, value in values.items():
        if value is not None:
            put(body, field, value)


def _pairs(texts: tuple[str, ...], option: str, example: str) -> Iterator[tuple[str, str]]:
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not all(key.split(".")):
            raise UsageError(f"{option} {text!r} is no pair; write it like {option} {example}")
        yield key, value


def kind_of(value: Any) -> str:
    """What people call such a value."""
    names = {dict: "a mapping", list: "a list", str: "a text", type(None): "nothing"}
    return names.get(type(value), json.dumps(value, default=str))


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error).replace("\n", " ")
