"""The key-value storage."""

from __future__ import annotations

import asyncio
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bridges import storage as make_storage
from hosts import Host
from memcell_client import AsyncMemCellClient, Invalid, MemCellClient, NotFound, new_event_id
from memcell_client.storage import MemCellStorage, SyncMemCellStorage

HOSTS_OWN = {"event_id", "revision", "created_at", "updated_at"}


class KeyValueStorage(ABC):
    """The interface that applications call."""

    @abstractmethod
    async def put(self, key: str, value: str) -> bool: ...

    @abstractmethod
    async def get(self, key: str) -> str | None: ...

    @abstractmethod
    async def delete(self, key: str) -> bool: ...

    @abstractmethod
    async def batch_get(self, keys: list[str]) -> dict[str, str]: ...

    @abstractmethod
    async def batch_delete(self, keys: list[str]) -> int: ...

    @abstractmethod
    async def close(self) -> None: ...


class Application(MemCellStorage, KeyValueStorage):
    """Type checkers see here that the storage has the interface."""


@pytest.fixture
async def storage_of(kind: str, host: Host) -> AsyncIterator[Callable[..., MemCellStorage]]:
    storages: list[MemCellStorage] = []

    def make(**options: Any) -> MemCellStorage:
        storages.append(make_storage(kind, host.url, **options))
        return storages[-1]

    yield make
    for storage in storages:
        await storage.close()


@pytest.fixture
def storage(storage_of: Callable[..., MemCellStorage]) -> MemCellStorage:
    return storage_of()


def value(**fields: Any) -> str:
    return json.dumps({"timestamp": "2025-06-26T20:00:00+08:00", **fields})


def own(text: str | None) -> dict[str, Any]:
    assert text is not None
    return {name: value for name, value in json.loads(text).items() if name not in HOSTS_OWN}


async def test_what_is_put_is_got(storage: MemCellStorage) -> None:
    key = new_event_id()
    assert await storage.get(key) is None
    assert await storage.delete(key) is False
    fields = {"user_id": "火", "extend": {"at": "2025-06-26T20:00:00", "n": 1.0, "none": None}, "unknown": [[]]}
    assert await storage.put(key, value(**fields)) is True
    text = await storage.get(key)
    assert own(text) == {"timestamp": "2025-06-26T12:00:00Z", **fields}
    assert text is not None
    assert "火" in text
    assert json.loads(text)["event_id"] == key
    assert await storage.delete(key) is True
    assert await storage.get(key) is None
    assert await storage.delete(key) is False


async def test_a_put_replaces_all(storage: MemCellStorage, client: AsyncMemCellClient) -> None:
    key = new_event_id()
    await storage.put(key, value(summary="old", vanishing=1))
    first = await client.get(key)
    await storage.put(key.upper(), value(summary=None, new=2))
    second = await client.get(key)
    assert own(await storage.get(key)) == {"timestamp": "2025-06-26T12:00:00Z", "summary": None, "new": 2}
    assert second.revision is not None
    assert second.revision > (first.revision or 0)
    # What is read can be put as it is.
    text = await storage.get(key)
    assert text is not None
    await storage.put(key, text)
    assert own(await storage.get(key)) == own(text)
    # A deleted one is replaced as well.
    await storage.delete(key)
    await storage.put(key, value(again=True))
    assert own(await storage.get(key)) == {"timestamp": "2025-06-26T12:00:00Z", "again": True}


async def test_ids_may_be_called_otherwise(storage_of: Callable[..., MemCellStorage]) -> None:
    key = new_event_id()
    forms: list[dict[str, Any]] = [
        {"_id": key},
        {"id": key.upper()},
        {"_id": {"$oid": key}},
        {"event_id": key, "id": None},
        {},
    ]
    for number, ids in enumerate(forms):
        for name in ("event_id", "_id", "id"):
            storage = storage_of(id_field=name)
            await storage.put(key, value(number=number, **ids))
            for text in (await storage.get(key), (await storage.batch_get([key]))[key]):
                assert text is not None
                read = json.loads(text)
                assert read[name] == key
                assert read["number"] == number
                assert len({"event_id", "_id", "id"} & read.keys()) == 1
    storage = storage_of()
    for wrong in ({"_id": new_event_id()}, {"event_id": "x"}):
        with pytest.raises(Invalid, match="another id"):
            await storage.put(key, value(**wrong))
    await storage.put(key, value(id="the application's own"))
    assert own(await storage.get(key))["id"] == "the application's own"


async def test_what_is_no_memcell_is_refused(storage: MemCellStorage) -> None:
    key = new_event_id()
    for text in ("", "[]", "{", "null", "{}", '{"timestamp": "noon"}'):
        with pytest.raises(Invalid):
            await storage.put(key, text)
    with pytest.raises(Invalid):
        await storage.put("no id", value())
    assert await storage.get(key) is None
    # A replacement that is refused leaves what there is.
    await storage.put(key, value(kept=1))
    with pytest.raises(Invalid):
        await storage.put(key, value(participants=7))
    assert own(await storage.get(key))["kept"] == 1


async def test_keys_that_nothing_can_be_under(storage: MemCellStorage) -> None:
    for key in ("", "no id", "../x"):
        assert await storage.get(key) is None
        assert await storage.delete(key) is False
    assert await storage.batch_get(["", "no id"]) == {}
    assert await storage.batch_delete(["", "no id"]) == 0


async def test_batches(storage_of: Callable[..., MemCellStorage]) -> None:
    storage = storage_of(chunk=7, at_once=3)
    keys = [new_event_id() for _ in range(20)]
    for number, key in enumerate(keys):
        await storage.put(key, value(number=number))
    absent = new_event_id()
    found = await storage.batch_get([*keys, absent, keys[0].upper(), keys[0]])
    assert set(found) == {*keys, keys[0].upper()}
    assert [json.loads(found[key])["number"] for key in keys] == list(range(20))
    assert await storage.batch_get([]) == {}
    assert await storage.batch_delete([*keys[:15], absent, keys[0]]) == 15
    assert set(await storage.batch_get(keys)) == set(keys[15:])
    assert await storage.batch_delete([]) == 0


async def test_deletions_are_soft_or_for_good(
    storage_of: Callable[..., MemCellStorage], client: AsyncMemCellClient
) -> None:
    soft, hard = new_event_id(), new_event_id()
    for storage, key in ((storage_of(), soft), (storage_of(hard_delete=True), hard)):
        await storage.put(key, value())
        assert await storage.delete(key) is True
    assert (await client.restore(soft)).count == 1
    with pytest.raises(NotFound):
        await client.restore(hard)


async def test_puts_of_one_key_at_a_time_leave_one_whole_value(
    storage: MemCellStorage, client: AsyncMemCellClient
) -> None:
    key = new_event_id()
    await asyncio.gather(*(storage.put(key, value(**{f"only_{number}": number})) for number in range(8)))
    fields = own(await storage.get(key))
    assert len(fields) == 2, fields
    assert await client.count() >= 1


async def test_a_storage_closes_its_own_client_only(host: Host) -> None:
    async with AsyncMemCellClient(host.url) as client:
        async with MemCellStorage(client, owns_client=False) as storage:
            assert "http" in repr(storage)
        assert await client.health() == "ok"
    shared = MemCellClient(host.url)
    with SyncMemCellStorage(shared):
        pass
    with pytest.raises(RuntimeError):
        shared.health()
    with pytest.raises(ValueError, match="chunk"):
        MemCellStorage(client, chunk=0)
    with pytest.raises(ValueError, match="id_field"):
        MemCellStorage(client, id_field="key")  # type: ignore[arg-type]


def test_both_storages_have_the_interface() -> None:
    for name, method in inspect.getmembers(KeyValueStorage, inspect.isfunction):
        for storage in (MemCellStorage, SyncMemCellStorage):
            given = inspect.signature(getattr(storage, name))
            wanted = inspect.signature(method)
            assert list(given.parameters) == list(wanted.parameters)
            assert given.return_annotation == wanted.return_annotation
        assert inspect.iscoroutinefunction(getattr(MemCellStorage, name))
        assert not inspect.iscoroutinefunction(getattr(SyncMemCellStorage, name))
