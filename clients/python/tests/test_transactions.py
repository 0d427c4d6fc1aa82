"""Several writes, all or none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from memcell_client import (
    Append,
    AsyncMemCellClient,
    Conflict,
    Delete,
    HardDelete,
    Invalid,
    NotFound,
    Restore,
    Update,
    new_event_id,
)

NOON = datetime(2025, 6, 26, 12, tzinfo=UTC)


async def test_operations_take_place_in_their_order(client: AsyncMemCellClient) -> None:
    kept, gone = new_event_id(), new_event_id()
    result = await client.transaction(
        [
            Append({"event_id": kept, "timestamp": NOON}),
            Append({"event_id": gone, "timestamp": NOON}),
            Update(kept, {"subject": "s"}),
            Delete(kept, deleted_by="me"),
            Restore(kept),
            HardDelete(gone),
        ]
    )
    assert [item.op for item in result.items] == ["append", "append", "update", "delete", "restore", "hard_delete"]
    assert result.items[0].memcell is not None
    assert result.items[0].memcell.timestamp == NOON
    assert [item.count for item in result.items] == [None, None, None, 1, 1, 1]
    assert result.mirrored in ("queued", "applied")
    assert (await client.get(kept)).memcell.subject == "s"
    with pytest.raises(NotFound):
        await client.get(gone)


async def test_nothing_of_one_that_fails_takes_place(client: AsyncMemCellClient) -> None:
    event_id = new_event_id()
    append = Append({"event_id": event_id, "timestamp": NOON})
    with pytest.raises(NotFound, match="operation 1: "):
        await client.transaction([append, Delete(new_event_id())])
    with pytest.raises(Conflict, match="operation 1: "):
        await client.transaction([append, append])
    with pytest.raises(Invalid, match="operation 1: ") as invalid:
        await client.transaction([append, Append({})])
    assert invalid.value.field == "timestamp"
    with pytest.raises(NotFound):
        await client.get(event_id)
