"""What is sent and what comes back, without sending: shared by the blocking and the asynchronous client."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import httpx

from nas.client.errors import ClientError, UnsendableRequestError, error_from

NUM_TRIES = 6
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0

Params = Mapping[str, Any]


def connection_settings(url: str, key: str | None, timeout_s: float) -> dict[str, Any]:
    """What an httpx client of either kind is made with; ClientError for an impossible URL or key."""
    headers = {"Accept": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {_checked_key(key)}"
    # A proxy of the environment is for the world outside, not for this machine.
    is_local = checked_url(url).host in ("localhost", "127.0.0.1", "::1")
    return {"base_url": url, "headers": headers, "timeout": timeout_s, "trust_env": not is_local}


def checked_url(url: str) -> httpx.URL:
    """The URL, parsed; UnsendableRequestError unless it can be a service's."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise UnsendableRequestError(f"the URL {url!r} cannot be read ({error}); {_URL_REMEDY}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or set(parsed.host) & set("[]<>{} %"):
        raise UnsendableRequestError(f"{url!r} is no URL of a service; {_URL_REMEDY}")
    return parsed


_URL_REMEDY = "it looks like http://127.0.0.1:8080"


def _checked_key(key: str) -> str:
    # Not shown: a key is a secret even where it is wrong.
    if not key or not all("!" <= character <= "~" for character in key):
        raise UnsendableRequestError(
            "the key is empty or holds a blank or another character that no key has; copy it anew"
        )
    return key


def encoded(body: Mapping[str, Any]) -> bytes:
    """The body as JSON, what is None left out; UnsendableRequestError for values that JSON has not."""
    try:
        return json.dumps(given(body), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        offender = _offender(body, "") or f"the request ({error})"
        raise UnsendableRequestError(
            f"{offender} cannot be written as JSON; send texts, finite numbers, true, false, null, lists and "
            "mappings only"
        ) from error


def _offender(value: Any, path: str) -> str | None:
    """The first value within that JSON has not, and where it lies: 'split.val_fraction: nan'."""
    if isinstance(value, Mapping):
        members = [(f"{path}.{name}".lstrip("."), member) for name, member in value.items()]
    elif isinstance(value, list | tuple):
        members = [(f"{path}.{number}", member) for number, member in enumerate(value)]
    else:
        is_json = value is None or isinstance(value, str | int | float)
        is_finite = not isinstance(value, float) or isfinite(value)
        return None if is_json and is_finite else f"{path}: {value!r} ({type(value).__name__})"
    try:
        return next((found for name, member in members if (found := _offender(member, name))), None)
    except RecursionError:
        return f"{path}: a value that contains itself"


def given(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """The values without those that are None."""
    return {name: value for name, value in (values or {}).items() if value is not None}


def retry_pauses_s() -> Iterator[float]:
    """How long to wait after each try; the last try waits for nothing."""
    pause_s = _FIRST_PAUSE_S
    for _ in range(NUM_TRIES - 1):
        yield pause_s
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    yield 0.0


def may_be_repeated(response: httpx.Response) -> bool:
    """Whether the same request may yet be answered well."""
    if response.status_code in (502, 503, 504):
        return True
    # Our own first try, given up on this side, still runs on the other.
    return response.status_code == 409 and _problem(response).get("type") == "/problems/idempotency-in-flight"


def parsed(response: httpx.Response) -> Any:
    """The answer's JSON; ClientError where it is none, as when another server listens there."""
    try:
        return response.json()
    except ValueError as error:
        kind = response.headers.get("content-type", "no content type")
        raise ClientError(
            f"{response.request.url} answered {response.status_code} with {kind} instead of JSON: "
            "it is not this service; check the URL"
        ) from error


def raise_problem(response: httpx.Response) -> None:
    """Raise the exception for an answer that is an error."""
    # Our API redirects nowhere: whoever does is something else, or in between.
    if response.is_error or response.is_redirect:
        raise error_from(_problem(response))


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, Mapping) and "type" in problem and "status" in problem:
        return problem
    # Not from our service: a proxy in between, or another server on that port.
    return {
        "type": "about:blank",
        "title": f"{response.request.url} answered {response.status_code} {response.reason_phrase}",
        "status": response.status_code,
        "detail": response.text[:500],
    }
