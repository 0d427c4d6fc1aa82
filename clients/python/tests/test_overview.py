"""What an operator sees at a glance, and the repair of what is wrong."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conftest import MakeClient
from hosts import PATIENCE, Host, backend
from memcell_client import AsyncMemCellClient, Mismatch, NotFound, Overview
from redis_server import RedisServer

NOON = datetime(2025, 6, 26, 12, tzinfo=UTC)


async def overview_when(
    client: AsyncMemCellClient, fits: Callable[[Overview], bool], what: str, since: int = 0
) -> Overview:
    deadline = time.monotonic() + PATIENCE
    while not fits(overview := await client.overview(since=since)):
        assert time.monotonic() < deadline, f"waited in vain until {what}: {overview}"
        await asyncio.sleep(0.05)
    return overview


async def test_all_of_it_at_a_glance(client: AsyncMemCellClient) -> None:
    before = await client.overview()
    await client.append({"timestamp": NOON})
    overview = await overview_when(
        client, lambda now: sum(sample.writes for sample in now.history.samples) > 0, "a write is in a sample"
    )
    assert overview.operations.writes > before.operations.writes
    assert overview.operations.failed == before.operations.failed
    assert overview.version == (await client.openapi())["info"]["version"]
    assert overview.host
    assert overview.started_at == before.started_at <= datetime.now(UTC)
    assert overview.uptime_seconds > before.uptime_seconds
    mongodb = overview.mongodb
    assert (mongodb.reachable, mongodb.problem, mongodb.server) == (True, None, "embedded")
    assert (mongodb.database, mongodb.collection) == ("memcell", "memcells")
    assert (overview.mismatches.count, overview.mismatches.version) == (0, before.mismatches.version)
    (local,) = overview.backends
    assert (local.name, local.state, local.validates) == ("local", "live", True)
    history = overview.history
    numbers = [sample.number for sample in history.samples]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) <= history.most
    newest = history.samples[-1]
    assert newest.seconds >= history.interval_seconds * 0.9
    assert newest.at > overview.started_at
    assert [sampled.name for sampled in newest.backends] == ["local"]
    assert sum(sample.backends[0].written for sample in history.samples if sample.backends) > 0
    assert overview.extra == newest.extra == newest.backends[0].extra == {}


async def test_only_newer_samples_are_answered(client: AsyncMemCellClient) -> None:
    known = (await overview_when(client, lambda now: bool(now.history.samples), "there is a sample")).history.samples
    newer = await overview_when(
        client, lambda now: bool(now.history.samples), "there is a newer sample", since=known[-1].number
    )
    assert newer.history.samples[0].number == known[-1].number + 1


async def test_there_is_an_overview_while_mongodb_is_away(own_host: Callable[..., Host], client_of: MakeClient) -> None:
    host = own_host()
    client = client_of(host.url)
    host.signal_mongodb(signal.SIGSTOP)
    try:
        overview = await client.overview()
    finally:
        host.signal_mongodb(signal.SIGCONT)
    assert not overview.mongodb.reachable
    assert overview.mongodb.problem
    assert [state.name for state in overview.backends] == ["local"]


async def test_the_configuration_in_force_is_shown_without_secrets(
    own_host: Callable[..., Host], client_of: MakeClient, tmp_path: Path
) -> None:
    host = own_host(backend("local") + 'limits = { call_timeout = "7s" }\n')
    config = await client_of(host.url).config()
    assert config["mongodb"]["uri"] == "embedded"
    assert config["backends"]["local"]["limits"]["call_timeout"] == "7s"
    assert config["http"]["request_timeout"] == "30s"
    secretive = tmp_path / "secretive"
    secretive.mkdir()
    settings = 'settings = { password = "s3cret" }\n'
    # The plugin doesn't know the setting, so its backend fails; the configuration is there all the same.
    host = Host(secretive, backend("local") + settings)
    try:
        shown = await client_of(host.url).config()
    finally:
        host.stop()
    assert shown["backends"]["local"]["settings"] == {"password": "***"}


async def test_a_mismatch_is_repaired(own_host: Callable[..., Host], client_of: MakeClient, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis:
        # However busy the machine is, a read waits for the copy.
        host = own_host('[validation]\nread_budget = "20s"\n' + redis.backend("local"))
        client = client_of(host.url)
        event_id = (await client.append({"timestamp": NOON, "summary": "kept"})).memcell.event_id
        deadline = time.monotonic() + PATIENCE
        while (await client.get(event_id, validate=True)).validation != "consistent":
            assert time.monotonic() < deadline, "the copy never came"
        before = (await client.overview()).mismatches
        while (overview := await client.overview()).mismatches.count == 0:
            assert time.monotonic() < deadline, "the mismatch was never confirmed"
            # The mirror may still be bringing it, once more.
            if (await client.get(event_id, validate=True)).validation == "consistent":
                redis.lose(event_id)
        assert (overview.mismatches.count, overview.mismatches.version > before.version) == (1, True)
        (mismatch,) = await client.mismatches()
        assert isinstance(mismatch, Mismatch)
        assert (mismatch.event_id, mismatch.backend, mismatch.kind) == (event_id, "local", "missing")

        repaired = await client.repair_mismatch(mismatch.backend, mismatch.event_id)
        assert (repaired.mended, repaired.outcome, repaired.extra) == (True, "consistent", {})
        assert await client.mismatches() == []
        assert (await client.get(event_id, validate=True)).validation == "consistent"
        with pytest.raises(NotFound, match="no such mismatch"):
            await client.repair_mismatch(mismatch.backend, mismatch.event_id)


async def test_what_is_no_mismatch(client: AsyncMemCellClient) -> None:
    for named in (("local", "685c8c52a1b2c3d4e5f60718"), ("else where/", "685c8c52a1b2c3d4e5f60718"), ("local", "..")):
        with pytest.raises(NotFound):
            await client.repair_mismatch(*named)
