"""Those that match: lists, pages, streams, counts, bulk deletions, and what a user did."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from memcell_client import AsyncMemCellClient, Invalid, MemCell

NOON = datetime(2025, 6, 26, 12, tzinfo=UTC)


async def names(cells: AsyncIterator[MemCell]) -> str:
    return " ".join([str(cell.subject) async for cell in cells])


@pytest.fixture
async def ana(client: AsyncMemCellClient, user: str) -> str:
    """A user with three MemCells an hour apart, in a group of the same name."""
    cells = [
        {"subject": "one", "participants": ["x", "y"], "keywords": ["k"], "type": "Note"},
        {"subject": "two", "participants": ["y"], "keywords": ["k", "l"], "type": "Conversation"},
        {"subject": "three", "participants": [], "type": "Conversation"},
    ]
    common = {"user_id": user, "group_id": user}
    await client.append_many(
        {**common, "timestamp": NOON + timedelta(hours=hour), **cell} for hour, cell in enumerate(cells)
    )
    return user


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, "three two one"),
        ({"order": "oldest"}, "one two three"),
        ({"skip": 1}, "two one"),
        ({"limit": 2}, "three two"),
        ({"limit": 2, "skip": 1, "order": "oldest"}, "two three"),
        ({"limit": 0}, ""),
        ({"participants": ["x", "y"]}, "two one"),
        ({"participants": ["x", "y"], "match": "all"}, "one"),
        ({"keywords": ["l"]}, "two"),
        ({"type": "Conversation"}, "three two"),
        ({"start": NOON + timedelta(hours=1)}, "three two"),
        ({"start": NOON, "end": NOON + timedelta(hours=2)}, "two one"),
        ({"deleted": "only"}, ""),
    ],
)
async def test_conditions(client: AsyncMemCellClient, ana: str, conditions: dict[str, Any], expected: str) -> None:
    for size in (1, 2, 500):
        assert await names(client.find(group_id=ana, page_size=size, **conditions)) == expected
    assert await names(client.find(group_id=ana, stream=True, **conditions)) == expected
    if not conditions.keys() & {"order", "skip", "limit"}:
        assert await client.count(group_id=ana, **conditions) == len(expected.split())


async def test_pages_can_be_turned_by_hand(client: AsyncMemCellClient, ana: str) -> None:
    page = await client.find_page(user_id=ana, limit=2)
    assert [cell.subject for cell in page.items] == ["three", "two"]
    page = await client.find_page(user_id=ana, limit=2, cursor=page.next)
    assert [cell.subject for cell in page.items] == ["one"]
    assert page.next is None
    with pytest.raises(Invalid, match="cursor"):
        await client.find_page(user_id=ana, cursor="nonsense")
    with pytest.raises(Invalid):
        await client.count(participants=cast(Any, "x"))
    with pytest.raises(ValueError, match="page_size"):
        await names(client.find(page_size=0))
    with pytest.raises(ValueError, match="limit"):
        await client.find_page(limit=0)


async def test_odd_users_are_found_as_they_are(client: AsyncMemCellClient, user: str) -> None:
    for odd in (f"{user} a&b=c+d%2F/../é#?🍲", f"{user}/..", "..", "."):
        await client.append({"user_id": odd, "timestamp": NOON})
        assert [cell.user_id async for cell in client.find(user_id=odd)] == [odd]
        assert [cell.user_id for cell in await client.latest(odd)] == [odd]
        assert (await client.activity(odd)).total_count == 1
        await client.hard_delete_many(user_id=odd)


async def test_latest_and_activity(client: AsyncMemCellClient, ana: str) -> None:
    assert [cell.subject for cell in await client.latest(ana)] == ["three", "two", "one"]
    assert [cell.subject for cell in await client.latest(ana, limit=1)] == ["three"]
    assert len(await client.latest(ana, limit=0)) == 3
    activity = await client.activity(ana)
    assert (activity.user_id, activity.total_count) == (ana, 3)
    assert activity.type_distribution == {"Note": 1, "Conversation": 2}
    assert (activity.earliest_activity, activity.latest_activity) == (NOON, NOON + timedelta(hours=2))
    nothing = await client.activity(ana, start=NOON + timedelta(days=1))
    assert (nothing.total_count, nothing.earliest_activity) == (0, None)


async def test_bulk_deletion_and_restoration(client: AsyncMemCellClient, ana: str) -> None:
    deleted = await client.delete_many(user_id=ana, start=NOON + timedelta(hours=1), deleted_by="me")
    assert deleted.count == 2
    assert deleted.mirrored in ("queued", "applied")
    assert await names(client.find(user_id=ana)) == "one"
    assert {cell.deleted_by async for cell in client.find(user_id=ana, deleted="only")} == {"me"}
    assert (await client.restore_many(user_id=ana, end=NOON + timedelta(hours=2))).count == 1
    assert (await client.hard_delete_many(user_id=ana)).count == 3
    assert await client.count(user_id=ana, deleted="include") == 0
    for operation in (client.delete_many, client.hard_delete_many, client.restore_many):
        with pytest.raises(Invalid):
            await operation()


COUNT = 6_000


@pytest.fixture(scope="module")
def many(host: Any) -> str:
    """A user with more MemCells than fit into a page, a part or a megabyte."""
    from memcell_client import MemCellClient

    with MemCellClient(host.url) as client:
        for begin in range(0, COUNT, 1000):
            client.append_many(
                {
                    "user_id": "many",
                    "timestamp": NOON + timedelta(seconds=number),
                    "number": number,
                    "summary": '…"}]}\\{["' + "x" * 1500,
                }
                for number in range(begin, begin + 1000)
            )
    return "many"


@pytest.mark.parametrize("options", [{"stream": True}, {"page_size": 700}])
async def test_large_lists_come_whole_and_in_order(
    client: AsyncMemCellClient, many: str, options: dict[str, Any]
) -> None:
    numbers = [cell["number"] async for cell in client.find(user_id=many, order="oldest", **options)]
    assert numbers == list(range(COUNT))


async def test_a_stream_takes_little_memory(client: AsyncMemCellClient, many: str) -> None:
    tracemalloc.start()
    try:
        seen = 0
        async for _ in client.find(user_id=many, stream=True):
            seen += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == COUNT
    assert peak < 4_000_000, f"{peak} bytes for a list of {COUNT * 1700}"


async def test_a_list_can_be_left_early(client: AsyncMemCellClient, many: str) -> None:
    for _ in range(3):
        async with aclosing(cast(Any, client.find(user_id=many, stream=True))) as cells:
            async for _ in cells:
                break
    assert await client.count(user_id=many) == COUNT
