"""The contract, kept by the asynchronous client and by the blocking one, over a real port."""

from __future__ import annotations

import asyncio
import inspect
import sys
from pathlib import Path

import pytest

import tests.client.contract as contract
from nas.client import AsyncClient, Client, ClientError
from nas.client.derive import FOLDER, SOURCES, blocking, blocking_source

LAWS = [
    name
    for name, law in inspect.getmembers(contract, inspect.iscoroutinefunction)
    if list(inspect.signature(law).parameters) == ["client", "worker", "folder"]
]


def blocking_contract() -> dict:
    """The laws as they are spelled for the blocking client."""
    source = Path(contract.__file__).read_text()
    names: dict = {"__name__": "blocking_contract"}
    exec(compile(blocking(source), "blocking_contract", "exec"), names)
    return names


@pytest.mark.parametrize("name", SOURCES)
def test_the_blocking_client_is_what_the_asynchronous_one_derives_to(name):
    remedy = "run: python -m nas.client.derive"
    assert (FOLDER / f"{name}.py").read_text() == blocking_source(name), remedy


@pytest.mark.parametrize("law", LAWS)
def test_asynchronously(law, service_url, database_url, worker, tmp_path):
    async def run() -> None:
        async with AsyncClient(service_url) as client:
            await getattr(contract, law)(client, worker, tmp_path)

    asyncio.run(run())


@pytest.mark.parametrize("law", LAWS)
def test_blocking(law, client, worker, tmp_path):
    blocking_contract()[law](client, worker, tmp_path)


def test_the_contract_has_laws():
    assert len(LAWS) >= 9


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://127.0.0.1", "http://", "http://[", "file:///x", "http://a:b:c"]
)
def test_a_url_that_is_none_is_refused_when_the_client_is_made(kind, url):
    with pytest.raises(ClientError, match="it looks like http"):
        kind(url)


@pytest.mark.parametrize("key", ["", "s3 cret", "ключ", "line\nbreak"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key):
    with pytest.raises(ClientError, match="copy it anew") as refused:
        Client("http://127.0.0.1:8080", key)
    assert repr(key)[1:-1] not in str(refused.value) or not key


def test_without_pandas_the_frontier_says_what_to_install(monkeypatch):
    from nas.client import Frontier

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ClientError, match="pip install pandas"):
        Frontier([]).to_dataframe()
