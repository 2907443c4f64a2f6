"""A cancelled task leaves no connection in use and no file that cannot be gone on with."""

from __future__ import annotations

import asyncio
import hashlib
import threading

import httpx
import pytest

from nas.client import AsyncClient, Client
from tests.client.contract import DIGITS


def connections_in_use(client: AsyncClient) -> list:
    pool = client.datasets._transport._http._transport._pool
    return [connection for connection in pool.connections if not connection.is_idle()]


async def cancelled_after(work, pause_s: float) -> None:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(pause_s)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_cancelled_while_waiting_or_reading_events_the_client_goes_on(service_url, database_url, worker):
    async def read(dataset) -> None:
        async for _ in dataset.events():
            pass

    async def run() -> None:
        async with AsyncClient(service_url) as client:
            dataset = await client.datasets.create(DIGITS)
            await cancelled_after(read(dataset), 0.5)
            assert connections_in_use(client) == []
            await cancelled_after(dataset.wait(), 0.5)
            assert connections_in_use(client) == []
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await dataset.wait()
            worker.import_dataset()
            assert (await dataset.wait(timeout=60)).state == "succeeded"

    asyncio.run(run())


def test_a_download_cancelled_in_the_middle_goes_on_from_there(service_url, subnet, tmp_path, monkeypatch):
    whole = httpx.Response.aiter_raw
    started = []

    async def slowly(response, chunk_size=None):
        started.append(response.status_code)
        async for chunk in whole(response, 100_000):
            yield chunk
            await asyncio.sleep(0.1)

    async def run() -> None:
        async with AsyncClient(service_url) as client:
            (artifact,) = [
                one for one in await client.subnets.artifacts(subnet.id) if one["name"] == "model.safetensors"
            ]
            monkeypatch.setattr(httpx.Response, "aiter_raw", slowly)
            await cancelled_after(client.subnets.download(subnet.id, tmp_path), 0.6)
            assert connections_in_use(client) == []
            held = (tmp_path / "model.safetensors.part").stat().st_size
            assert 0 < held < artifact["size_bytes"]
            assert not (tmp_path / "model.safetensors").exists()
            monkeypatch.setattr(httpx.Response, "aiter_raw", whole)
            await client.subnets.download(subnet.id, tmp_path)
            digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
            assert digest == artifact["sha256"]

    asyncio.run(run())
    assert 200 in started


def test_a_dozen_jobs_are_waited_for_at_once(service_url, database_url, worker):

    async def run() -> None:
        async with AsyncClient(service_url) as client:
            datasets = [await client.datasets.create(DIGITS) for _ in range(12)]
            threading.Thread(target=lambda: [worker.import_dataset() for _ in datasets]).start()
            ended = await asyncio.gather(*(dataset.wait(timeout=60) for dataset in datasets))
            assert {dataset.id for dataset in ended} == {dataset.id for dataset in datasets}

    asyncio.run(run())


def test_events_left_unread_by_the_blocking_client_free_their_connection(service_url, database_url):
    with Client(service_url) as client:
        dataset = client.datasets.create(DIGITS)
        for _ in dataset.events():
            break
        pool = client._transport._http._transport._pool
        assert [connection for connection in pool.connections if not connection.is_idle()] == []
