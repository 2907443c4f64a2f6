"""The service, if it runs, and whoever else may have its port."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx

from nas.client.errors import ClientError
from nas.client.messages import checked_url, connection_settings
from nas.doctor.check import Check, ok, problem, warning

_ASK_S = 10.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def service(url: str, key: str | None, home: Path) -> Iterator[Check]:
    """What answers at the URL."""
    name = "service"
    try:
        settings = connection_settings(url, key, _ASK_S)
    except ClientError as error:
        yield problem(name, str(error), "correct --url or NAS_URL")
        return
    with httpx.Client(**settings) as http:
        try:
            version = http.get("/version")
        except httpx.TransportError as error:
            yield _silent(url, error, home)
            return
        if "api" not in _members(version):
            yield _stranger(url, version)
            return
        yield ok(name, f"version {_members(version)['version']} at {url}")
        yield _readiness(http)


def _silent(url: str, error: httpx.TransportError, home: Path) -> Check:
    parsed = checked_url(url)
    if parsed.host not in _LOOPBACK:
        return problem(
            "service", f"{url} does not answer: {error}", "start it there, or correct --url or NAS_URL"
        )
    if holder := _holder(home):
        return warning("service", f"none at {url}; {holder}", "ask that one: --url or NAS_URL")
    port = parsed.port or 80
    if _is_free(port):
        return ok("service", f"none runs; port {port} is free for `nas serve`")
    remedy = "stop what uses it; or let `nas serve` choose another, and say which with NAS_URL"
    return warning("service", f"port {port} is taken by something that does not answer HTTP", remedy)


def _stranger(url: str, answer: httpx.Response) -> Check:
    server = answer.headers.get("server", "something unnamed")
    finding = f"{url} is taken by something else ({server}; GET /version: {answer.status_code})"
    return warning("service", finding, "let `nas serve` choose another port, and say which with NAS_URL")


def _readiness(http: httpx.Client) -> Check:
    name = "service ready"
    try:
        answer = http.get("/readyz")
    except httpx.TransportError as error:
        return problem(name, f"GET /readyz: {error}", "see the service's api.log")
    if answer.status_code != httpx.codes.OK:
        detail = _members(answer).get("detail", answer.status_code)
        return problem(name, f"not ready: {detail}", "see the service's api.log")
    return ok(name, "its database answers, and has the newest schema")


def _members(answer: httpx.Response) -> dict[str, object]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _holder(home: Path) -> str:
    """Who serves from the home folder, by the note that `nas serve` keeps in it, if that answers."""
    try:
        holder = json.loads((home / "serve.lock").read_text())
        told = f"process {holder['pid']} serves from {home} at {holder['url']}"
        httpx.get(f"{holder['url']}/healthz", timeout=_ASK_S, trust_env=False).raise_for_status()
    except (OSError, ValueError, KeyError, TypeError, httpx.HTTPError, httpx.InvalidURL):
        return ""
    return told


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
