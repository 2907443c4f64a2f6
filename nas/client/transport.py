"""Requests that are repeated when the connection or the service fails, and never done twice."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx

from nas.client.errors import ServiceUnavailableError, error_from

_NUM_TRIES = 6
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_STORING_S = 600.0

Params = Mapping[str, Any]


class Transport:
    """One service, one pool of connections. Thread-safe."""

    def __init__(self, url: str, *, key: str | None, timeout_s: float) -> None:
        headers = {"Accept": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        # A proxy of the environment is for the world outside, not for this machine.
        is_local = httpx.URL(url).host in ("localhost", "127.0.0.1", "::1")
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=not is_local)

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def get(self, path: str, params: Params | None = None) -> Any:
        """The answer to GET, parsed."""
        return self._send("GET", path, params=_given(params)).json()

    def create(self, path: str, body: Mapping[str, Any]) -> Any:
        """The resource created; repeated with one key, so that it is created once."""
        headers = {"Idempotency-Key": uuid4().hex}
        return self._send("POST", path, json=_given(body), headers=headers).json()

    def create_from_bytes(
        self, path: str, content: Iterable[bytes], *, num_bytes: int | None, params: Params
    ) -> Any:
        """As `create`, of bytes: `num_bytes` of them if that is known. Each try iterates `content` anew."""
        headers = {"Idempotency-Key": uuid4().hex, "Content-Type": "application/octet-stream"}
        if num_bytes is not None:
            headers["Content-Length"] = str(num_bytes)
        # After the last byte, the service brings them all to its disk.
        timeout = httpx.Timeout(self._http.timeout.connect, read=_STORING_S)
        return self._send(
            "POST", path, content=content, params=_given(params), headers=headers, timeout=timeout
        ).json()

    def post(self, path: str) -> Any:
        """The answer to a POST that may be repeated."""
        return self._send("POST", path).json()

    def pages(self, path: str, params: Params | None = None) -> Iterator[Any]:
        """Every item of a list, page by page."""
        wanted = {**(params or {}), "page_size": 200}
        while True:
            page = self.get(path, wanted)
            yield from page["items"]
            if page["next_page_token"] is None:
                return
            wanted["page_token"] = page["next_page_token"]

    @contextmanager
    def stream(
        self, path: str, headers: Mapping[str, str], *, read_timeout_s: float
    ) -> Iterator[httpx.Response]:
        """The answer to GET, its body not read yet; httpx errors pass, since only the reader can resume."""
        timeout = httpx.Timeout(self._http.timeout.connect, read=read_timeout_s)
        with self._http.stream("GET", path, headers=dict(headers), timeout=timeout) as response:
            if response.is_error:
                response.read()
                if _may_be_repeated(response):
                    raise httpx.ReadError(f"the service answered {response.status_code}")
                _raise_problem(response)
            yield response

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        last = ""
        for pause_s in retry_pauses_s():
            try:
                response = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                last = f"{type(error).__name__}: {error}"
            else:
                if not _may_be_repeated(response):
                    _raise_problem(response)
                    return response
                last = response.text
            time.sleep(pause_s)
        raise ServiceUnavailableError(
            f"{self._http.base_url} did not answer after {_NUM_TRIES} tries: {last}; "
            "check that the service runs and that the URL is right"
        )


def retry_pauses_s() -> Iterator[float]:
    """How long to wait after each try; the last try waits for nothing."""
    pause_s = _FIRST_PAUSE_S
    for _ in range(_NUM_TRIES - 1):
        yield pause_s
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    yield 0.0


def _may_be_repeated(response: httpx.Response) -> bool:
    if response.status_code in (502, 503, 504):
        return True
    # Our own first try, given up on this side, still runs on the other.
    return response.status_code == 409 and _problem(response).get("type") == "/problems/idempotency-in-flight"


def _raise_problem(response: httpx.Response) -> None:
    if response.is_error:
        raise error_from(_problem(response))


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, Mapping) and "type" in problem and "status" in problem:
        return problem
    # Not from our service: a proxy in between, or another server on that port.
    return {"type": "about:blank", "status": response.status_code, "detail": response.text[:500]}


def _given(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (values or {}).items() if value is not None}
