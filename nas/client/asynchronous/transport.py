"""Requests that are repeated when the connection or the service fails, and never done twice."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx

from nas.client.asynchronous.concurrency import sleep
from nas.client.errors import ServiceUnavailableError
from nas.client.messages import (
    NUM_TRIES,
    Params,
    connection_settings,
    encoded,
    given,
    may_be_repeated,
    parsed,
    raise_problem,
    retry_pauses_s,
)

_STORING_S = 600.0


class AsyncTransport:
    """One service, one pool of connections. Shared freely by the threads or tasks of one program."""

    def __init__(self, url: str, *, key: str | None, timeout_s: float) -> None:
        self._http = httpx.AsyncClient(**connection_settings(url, key, timeout_s))

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def get(self, path: str, params: Params | None = None) -> Any:
        """The answer to GET, parsed."""
        return parsed(await self._send("GET", path, params=given(params)))

    async def create(self, path: str, body: Mapping[str, Any]) -> Any:
        """The resource created; repeated with one key, so that it is created once."""
        headers = {"Idempotency-Key": uuid4().hex, "Content-Type": "application/json"}
        return parsed(await self._send("POST", path, content=encoded(body), headers=headers))

    async def create_from_bytes(
        self, path: str, content: AsyncIterable[bytes], *, num_bytes: int | None, params: Params
    ) -> Any:
        """As `create`, of bytes: `num_bytes` of them if that is known. Each try iterates `content` anew."""
        headers = {"Idempotency-Key": uuid4().hex, "Content-Type": "application/octet-stream"}
        if num_bytes is not None:
            headers["Content-Length"] = str(num_bytes)
        # After the last byte, the service brings them all to its disk.
        timeout = httpx.Timeout(self._http.timeout.connect, read=_STORING_S)
        answer = await self._send(
            "POST", path, content=content, params=given(params), headers=headers, timeout=timeout
        )
        return parsed(answer)

    async def create_from_lines(self, path: str, lines: str, params: Params) -> Any:
        """As `create`, of JSON lines."""
        headers = {"Idempotency-Key": uuid4().hex, "Content-Type": "application/jsonl"}
        sent = {"content": lines.encode(), "params": given(params), "headers": headers}
        return parsed(await self._send("POST", path, **sent))

    async def put_lines(self, path: str, lines: str, params: Params) -> Any:
        """What the JSON lines have become; putting them twice puts them once."""
        headers = {"Content-Type": "application/jsonl"}
        sent = {"content": lines.encode(), "params": given(params), "headers": headers}
        return parsed(await self._send("PUT", path, **sent))

    async def text(self, path: str) -> str:
        """The answer to GET as it comes."""
        return (await self._send("GET", path, headers={"Accept": "*/*"})).text

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer to a POST that may be repeated."""
        if body is None:
            return parsed(await self._send("POST", path))
        headers = {"Content-Type": "application/json"}
        return parsed(await self._send("POST", path, content=encoded(body), headers=headers))

    async def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """The resource changed; changing it twice alike changes it once."""
        headers = {"Content-Type": "application/json"}
        return parsed(await self._send("PATCH", path, content=encoded(body), headers=headers))

    async def delete(self, path: str) -> None:
        """Delete what lies there."""
        await self._send("DELETE", path)

    async def pages(self, path: str, params: Params | None = None) -> AsyncIterator[Any]:
        """Every item of a list, page by page."""
        wanted = {**(params or {}), "page_size": 200}
        while True:
            page = await self.get(path, wanted)
            for item in page["items"]:
                yield item
            if page["next_page_token"] is None:
                return
            wanted["page_token"] = page["next_page_token"]

    @asynccontextmanager
    async def stream(
        self, path: str, headers: Mapping[str, str], *, read_timeout_s: float
    ) -> AsyncIterator[httpx.Response]:
        """The answer to GET, its body not read yet; httpx errors pass, since only the reader can resume."""
        timeout = httpx.Timeout(self._http.timeout.connect, read=read_timeout_s)
        async with self._http.stream("GET", path, headers=dict(headers), timeout=timeout) as response:
            if response.is_error:
                await response.aread()
                if may_be_repeated(response):
                    raise httpx.ReadError(f"the service answered {response.status_code}")
                raise_problem(response)
            yield response

    async def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        last = ""
        for pause_s in retry_pauses_s():
            try:
                response = await self._http.request(method, path, **request)
            except httpx.TransportError as error:
                last = f"{type(error).__name__}: {error}"
            else:
                if not may_be_repeated(response):
                    raise_problem(response)
                    return response
                last = response.text
            await sleep(pause_s)
        raise ServiceUnavailableError(
            f"{self._http.base_url} did not answer after {NUM_TRIES} tries: {last}; "
            "check that the service runs and that the URL is right"
        )
