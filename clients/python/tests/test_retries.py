"""What is sent again, and what never is: with connections that really break."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from conftest import MakeClient
from hosts import Host
from memcell_client import (
    AsyncMemCellClient,
    Conflict,
    MemCellError,
    Retries,
    Timeout,
    TooManyRequests,
    Unavailable,
    new_event_id,
)
from memcell_client._operations import is_same
from proxies import Proxy, Stranger

NOON = datetime(2025, 6, 26, 12, tzinfo=UTC)
QUICK = Retries(attempts=3, first_delay=0.01, longest_delay=5.0)


async def test_a_closed_port_is_tried_again_and_then_told(client_of: MakeClient, host: Host) -> None:
    with Proxy(host.url) as proxy:
        proxy.close()
        client = client_of(proxy.url, retries=QUICK)
        with pytest.raises(Unavailable, match="check base_url") as refused:
            await client.append({"timestamp": NOON})
        assert (refused.value.code, refused.value.status, refused.value.in_doubt) == ("unreachable", None, False)


async def test_what_reached_nobody_is_sent_again(client_of: MakeClient, host: Host, user: str) -> None:
    with Proxy(host.url) as proxy:
        proxy.close()
        threading.Timer(0.3, proxy.reopen).start()
        client = client_of(proxy.url, retries=Retries(attempts=20, first_delay=0.05, longest_delay=0.2))
        await client.append({"user_id": user, "timestamp": NOON})
        assert await client.count(user_id=user) == 1


async def test_reads_are_sent_again_when_answers_are_lost(client_of: MakeClient, host: Host) -> None:
    with Proxy(host.url) as proxy:
        client = client_of(proxy.url, retries=QUICK)
        event_id = (await client.append({"timestamp": NOON})).memcell.event_id
        for lose in ("lose_requests", "lose_answers"):
            before = proxy.requests
            setattr(proxy, lose, 2)
            assert (await client.get(event_id)).memcell.timestamp == NOON
            assert proxy.requests == before + 3
            setattr(proxy, lose, 2)
            assert event_id in (await client.get_many([event_id])).items
        proxy.lose_requests = 3
        with pytest.raises(Unavailable) as broken:
            await client.get(event_id)
        assert broken.value.code == "broken_connection"


async def test_writes_in_doubt_are_not_repeated(client_of: MakeClient, host: Host, user: str) -> None:
    with Proxy(host.url) as proxy:
        client = client_of(proxy.url, retries=QUICK)
        await client.health()
        before = proxy.requests
        proxy.lose_answers = 1
        with pytest.raises(Unavailable, match="may or may not have taken place") as broken:
            await client.append({"user_id": user, "timestamp": NOON})
        assert broken.value.in_doubt
        assert proxy.requests == before + 1
        assert await client.count(user_id=user) == 1
        proxy.lose_answers = 1
        with pytest.raises(Unavailable):
            await client.delete_many(user_id=user)
        assert await client.count(user_id=user) == 0


async def test_an_append_with_an_id_is_repeated_and_found(client_of: MakeClient, host: Host, user: str) -> None:
    with Proxy(host.url) as proxy:
        client = client_of(proxy.url, retries=QUICK)
        cell: dict[str, Any] = {}
        for lose in ("lose_requests", "lose_answers"):
            cell = {
                "event_id": new_event_id(),
                "user_id": user,
                "timestamp": datetime(2025, 6, 26, 12, 0, 0, 7_999, tzinfo=UTC),
                "extend": {"at": [NOON], "n": 1.0},
                "own": None,
            }
            setattr(proxy, lose, 1)
            written = await client.append(cell)
            assert written.memcell["own"] is None
            assert written.revision == (await client.get(cell["event_id"])).revision
            assert (written.mirrored is None) == (lose == "lose_answers")
        assert await client.count(user_id=user) == 2
        # Somebody else's MemCell is still in the way.
        proxy.lose_requests = 1
        with pytest.raises(Conflict) as taken:
            await client.append({**cell, "own": 1})
        assert taken.value.code == "already_exists"


async def test_an_answer_that_does_not_come_is_a_timeout(client_of: MakeClient, host: Host, user: str) -> None:
    with Proxy(host.url) as proxy:
        client = client_of(proxy.url, retries=QUICK, timeout=0.5)
        proxy.hold_answers = 1
        assert await client.count(user_id=user) == 0
        proxy.hold_answers = 1
        with pytest.raises(Timeout) as late:
            await client.append({"user_id": user, "timestamp": NOON})
        assert (late.value.code, late.value.in_doubt) == ("no_answer", True)


async def test_a_stream_that_breaks_raises(client_of: MakeClient, host: Host, user: str) -> None:
    with Proxy(host.url) as proxy:
        client = client_of(proxy.url, retries=QUICK)
        await client.append_many({"user_id": user, "timestamp": NOON, "summary": "x" * 2000} for _ in range(500))
        proxy.lose_requests = 1
        assert len([cell async for cell in client.find(user_id=user, stream=True)]) == 500
        proxy.cut_after = 400_000
        seen = 0
        with pytest.raises(Unavailable) as broken:
            async for _ in client.find(user_id=user, stream=True):
                seen += 1
        assert broken.value.code == "broken_connection"
        assert 0 < seen < 500


async def test_a_host_that_is_cut_off_is_asked_again_after_a_while(
    own_host: Callable[..., Host], client_of: MakeClient
) -> None:
    host = own_host(mongodb='operation_timeout = "300ms"\nconnect_timeout = "300ms"\n')
    client = client_of(host.url, retries=Retries(attempts=8))
    event_id = new_event_id()
    await client.append({"event_id": event_id, "timestamp": NOON})
    host.signal_mongodb(signal.SIGSTOP)
    threading.Timer(1.0, host.signal_mongodb, [signal.SIGCONT]).start()
    begun = time.monotonic()
    assert (await client.get(event_id)).memcell.timestamp == NOON
    # The host says `retry-after: 1`.
    assert time.monotonic() - begun >= 1
    host.signal_mongodb(signal.SIGSTOP)
    try:
        with pytest.raises((Unavailable, Timeout)) as away:
            await client.update(event_id, {"subject": "s"})
    finally:
        host.signal_mongodb(signal.SIGCONT)
    assert (away.value.status, away.value.in_doubt, away.value.retry_after) == (503, True, 1.0)


async def test_a_write_that_was_not_begun_is_sent_again(client_of: MakeClient) -> None:
    headers = {"content-type": "application/problem+json", "retry-after": "0"}
    for code, requests in (("overloaded", 3), ("conflict", 3), ("unavailable", 1), ("timeout", 1)):
        body = b'{"code": "%s", "detail": "not now", "status": 503}' % code.encode()
        with Stranger(503, headers, body) as stranger:
            client = client_of(stranger.url, retries=QUICK)
            with pytest.raises(MemCellError, match="not now") as refused:
                await client.append({"timestamp": NOON})
            assert (len(stranger.requests), refused.value.in_doubt) == (requests, requests == 1)
            with pytest.raises(MemCellError, match="not now"):
                await client.count()
            assert len(stranger.requests) == requests + 3


async def test_a_host_that_wants_too_much_patience_is_not_asked_again(client_of: MakeClient) -> None:
    body = b'{"code": "rate_limited", "detail": "slow down", "status": 429, "title": "Too Many Requests"}'
    for seconds, requests in (("0", 3), ("60", 1)):
        headers = {"content-type": "application/problem+json", "retry-after": seconds}
        with Stranger(429, headers, body) as stranger:
            client = client_of(stranger.url, retries=QUICK)
            with pytest.raises(TooManyRequests, match="slow down") as slow:
                await client.append({"timestamp": NOON})
            assert slow.value.retry_after == float(seconds)
            assert len(stranger.requests) == requests


async def test_many_at_a_time(client: AsyncMemCellClient, user: str) -> None:
    async def one(number: int) -> int | None:
        cell = (await client.append({"user_id": user, "timestamp": NOON, "number": number})).memcell
        await client.update(cell.event_id, {"number": number + 1})
        return int((await client.get(cell.event_id)).memcell["number"])

    assert await asyncio.gather(*(one(number) for number in range(100))) == list(range(1, 101))
    assert await client.count(user_id=user) == 100


async def test_retries_are_logged_without_contents(
    client_of: MakeClient, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(host.url) as proxy:
        client = client_of(proxy.url, retries=QUICK, token="very-secret-token")
        proxy.lose_requests = 1
        with caplog.at_level(logging.DEBUG):
            await client.append({"event_id": new_event_id(), "timestamp": NOON, "summary": "private-words"})
        assert "very-secret-token" not in caplog.text
        assert "private-words" not in caplog.text
        ours = [record.getMessage() for record in caplog.records if record.name == "memcell_client"]
        assert ours[0].startswith("POST /v1/memcells: broken_connection, attempt 2 follows in")


def test_what_counts_as_stored_as_sent() -> None:
    stored = {
        "event_id": "x",
        "timestamp": "2025-06-26T12:00:00.123Z",
        "n": 1,
        "at": ["2025-06-26T12:00:00Z"],
        "revision": 7,
    }
    sent = {"timestamp": "2025-06-26T20:00:00.123999+08:00", "n": 1, "at": [{"$date": "2025-06-26T12:00:00Z"}]}
    assert is_same(sent, stored)
    assert is_same({**sent, "revision": 3, "created_at": None}, stored)
    changes: tuple[dict[str, Any], ...] = (
        {"n": 1.0},
        {"n": True},
        {"n": 2},
        {"more": None},
        {"at": []},
        {"timestamp": "2025-06-26T12:00:00Z"},
    )
    for change in changes:
        assert not is_same({**sent, **change}, stored)
    del sent["n"]
    assert not is_same(sent, stored)
