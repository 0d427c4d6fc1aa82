"""One MemCell, and many by their ids."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from memcell_client import AsyncMemCellClient, Conflict, Invalid, MemCell, NotFound, new_event_id

NOON = datetime(2025, 6, 26, 12, tzinfo=UTC)


async def test_the_life_of_a_memcell(client: AsyncMemCellClient, user: str) -> None:
    event_id = new_event_id()
    written = await client.append({"event_id": event_id, "user_id": user, "timestamp": NOON, "summary": "hot pot"})
    cell = written.memcell
    assert (cell.event_id, cell.user_id, cell.timestamp, cell.summary) == (event_id, user, NOON, "hot pot")
    assert written.revision == cell.revision
    assert written.mirrored in ("queued", "applied")
    assert cell.created_at == cell.updated_at
    assert abs(datetime.now(UTC) - (cell.created_at or NOON)) < timedelta(minutes=5)

    read = await client.get(event_id)
    assert read.memcell == cell
    assert read.revision == cell.revision
    assert read.validation in ("consistent", "in-flight")
    assert (await client.get(event_id.upper(), validate=False)).validation is None

    updated = await client.update(event_id, {"summary": None, "subject": "food"})
    assert updated.revision is not None
    assert updated.revision > (cell.revision or 0)
    assert updated.memcell["summary"] is None
    assert updated.memcell.subject == "food"
    assert updated.memcell.user_id == user
    assert (await client.update(event_id, {})).memcell == updated.memcell

    deleted = await client.delete(event_id, deleted_by="ana")
    assert deleted.count == 1
    assert deleted.revision is not None
    assert deleted.revision > updated.revision
    with pytest.raises(NotFound) as gone:
        await client.get(event_id, validate=True)
    assert gone.value.code == "not_found"
    assert gone.value.validation in ("consistent", "in-flight")
    with pytest.raises(NotFound):
        await client.delete(event_id)
    (seen,) = [cell async for cell in client.find(user_id=user, deleted="only")]
    assert seen.deleted_by == "ana"
    assert isinstance(seen.deleted_at, datetime)

    assert (await client.restore(event_id)).count == 1
    assert (await client.restore(event_id)).count == 0
    assert (await client.get(event_id)).memcell.subject == "food"
    assert (await client.hard_delete(event_id)).count == 1
    for operation in (client.hard_delete, client.restore):
        with pytest.raises(NotFound):
            await operation(event_id)


async def test_what_is_given_is_kept(client: AsyncMemCellClient, user: str) -> None:
    fields: dict[str, Any] = {
        "user_id": user,
        "timestamp": NOON,
        "summary": '火锅 🍲 \u0000 \u202e ‘quotes’ \\ " \n end',
        "group_id": None,
        "participants": ["ana", "本"],
        "original_data": [
            {"data_type": "Conversation", "messages": [{"content": "hi", "extend": {"x": 1}}], "own": []}
        ],
        "foresight_memories": [{"a": [1, 2.5, True, None, {"b": {}}]}],
        "event_log": {"time": "2025-06-26T12:00:00+08:00"},
        "unknown": {"deep": [[{"é": 1}]], "big": 2**53 + 1, "float": 1.0, "small": -5e-324},
        "π": "also unknown",
        "": None,
    }
    del fields[""]
    fields["summary"] = fields["summary"].replace("\u0000", "")
    cell = (await client.append(fields)).memcell
    assert re.fullmatch("[0-9a-f]{24}", cell.event_id)
    host_made = {"event_id", "revision", "created_at", "updated_at"}
    for given in (cell, (await client.get(cell.event_id)).memcell):
        assert {name: value for name, value in given.items() if name not in host_made} == fields
        assert given["unknown"]["float"] == 1.0
        assert isinstance(given["unknown"]["float"], float)
        assert "episode" not in given
        assert given.episode is None
    assert MemCell.from_wire(json.loads(cell.to_json())) == cell


async def test_datetimes_have_timezones_and_milliseconds(client: AsyncMemCellClient, user: str) -> None:
    east = timezone(timedelta(hours=8))
    moment = datetime(2025, 6, 26, 20, 0, 0, 123_999, tzinfo=east)
    cell = (await client.append({"user_id": user, "timestamp": moment, "extend": {"at": moment}})).memcell
    assert cell.timestamp == datetime(2025, 6, 26, 12, 0, 0, 123_000, tzinfo=UTC)
    assert cell.timestamp.tzinfo is UTC
    # Deeper down it was stored as a datetime; the API shows it as text.
    assert cell.extend == {"at": "2025-06-26T12:00:00.123Z"}
    text = (await client.append({"user_id": user, "timestamp": "2025-06-26T20:00:00+08:00"})).memcell
    assert text.timestamp == NOON
    first = datetime(1, 1, 1, tzinfo=UTC)
    assert (await client.append({"user_id": user, "timestamp": first})).memcell.timestamp == first
    before = (await client.append({"user_id": user, "timestamp": "0000-01-01T00:00:00Z"})).memcell
    assert before["timestamp"] == "0000-01-01T00:00:00Z"

    with pytest.raises(Invalid, match="timestamp: a datetime needs a timezone") as naive:
        await client.append({"timestamp": datetime(2025, 6, 26)})  # noqa: DTZ001
    assert naive.value.field == "timestamp"
    with pytest.raises(Invalid, match=r"extend\.at: a datetime needs a timezone"):
        await client.append({"timestamp": NOON, "extend": {"at": datetime(2025, 6, 26)}})  # noqa: DTZ001


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"timestamp": NOON, "extend": {"n": [1, float("nan")]}}, "extend.n[1]"),
        ({"timestamp": NOON, "extend": b"bytes"}, "extend"),
        ({"timestamp": NOON, "summary": "\ud800"}, None),
        ({"timestamp": NOON, "extend": {1: 2}}, "extend"),
    ],
)
async def test_what_json_has_no_form_for_is_refused_here(
    client: AsyncMemCellClient, fields: dict[str, Any], field: str | None
) -> None:
    with pytest.raises(Invalid) as refused:
        await client.append(fields)
    assert (refused.value.field, refused.value.status) == (field, None)


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({}, "invalid_document", "timestamp"),
        ({"timestamp": "noon"}, "invalid_document", "timestamp"),
        ({"timestamp": NOON, "participants": ["a", 7]}, "invalid_document", "participants[1]"),
        ({"timestamp": NOON, "event_id": "short"}, "invalid_id", None),
    ],
)
async def test_what_breaks_the_rules_is_named(
    client: AsyncMemCellClient, fields: dict[str, Any], code: str, field: str | None
) -> None:
    with pytest.raises(Invalid) as refused:
        await client.append(fields)
    assert (refused.value.code, refused.value.field) == (code, field)
    assert refused.value.request_id
    assert refused.value.request_id in str(refused.value)


async def test_ids_are_taken_once_and_have_to_be_ids(client: AsyncMemCellClient) -> None:
    event_id = new_event_id()
    cell = {"event_id": event_id, "timestamp": NOON}
    await client.append(cell)
    with pytest.raises(Conflict) as taken:
        await client.append(cell)
    assert (taken.value.code, taken.value.status, taken.value.is_passing) == ("already_exists", 409, False)
    for odd in ("no id", "../jobs", "..", "a/b?c#d", "é%2F"):
        with pytest.raises(NotFound, match="there is no MemCell"):
            await client.get(odd)
        with pytest.raises(Invalid) as invalid:
            await client.update(odd, {})
        assert invalid.value.code == "invalid_id"
    with pytest.raises(Invalid, match="event_id"):
        await client.get("")
    with pytest.raises(Invalid) as fixed:
        await client.update(event_id, {"revision": 1})
    assert fixed.value.field == "revision"


async def test_a_batch_says_what_became_of_each(client: AsyncMemCellClient, user: str) -> None:
    taken = (await client.append({"timestamp": NOON})).memcell.event_id
    batch: list[dict[str, Any]] = [
        {"user_id": user, "timestamp": NOON},
        {"user_id": user},
        {"event_id": taken, "timestamp": NOON},
    ]
    result = await client.append_many(batch)
    assert [item.index for item in result.items] == [0, 1, 2]
    assert result.mirrored in ("queued", "applied")
    first, second, third = result.items
    assert first.error is None
    assert first.event_id is not None
    assert isinstance(second.error, Invalid)
    assert second.error.field == "timestamp"
    assert isinstance(third.error, Conflict)
    assert [item.index for item in result.failed] == [1, 2]
    assert (await client.append_many([])).items == []

    ids = [first.event_id, taken, new_event_id(), "no id", taken.upper()]
    many = await client.get_many(ids, validate=True)
    assert set(many.items) == {first.event_id, taken}
    assert many.validation in ("consistent", "in-flight")
    assert many.items[taken].timestamp == NOON
    few = await client.get_many([first.event_id], fields=["user_id"])
    assert few.items == {first.event_id: {"event_id": first.event_id, "user_id": user}}
    assert few.validation is None
    assert (await client.get_many([])).items == {}
    with pytest.raises(Invalid):
        await client.get_many(taken)
    with pytest.raises(Invalid, match="10000"):
        await client.get_many([new_event_id() for _ in range(10_001)])


def test_fresh_ids_differ() -> None:
    ids = [new_event_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{24}", event_id) for event_id in ids)
