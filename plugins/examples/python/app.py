"""A MemCell backend in Python: `wit/kv.wit` answered from memory. Empty at every start.

Setting: `max_bytes` (a size such as `64MiB`; default: no limit but the sandbox's). Puts beyond it are `quota-exceeded`.
"""

import re
import time
from typing import Callable, List, Optional, Tuple

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import types

from records import Full, Record, Records

LIMITS = types.Limits(
    max_key_bytes=1024, max_value_bytes=16 * 1024 * 1024, max_batch=256, persistent=False, shared=False
)

# How many slots one step of a scan passes over, per entry wanted, before it answers with fewer.
PASSED_PER_WANTED = 8

CONDITIONS = {
    types.Condition.NEWER: "newer",
    types.Condition.NOT_OLDER: "not-older",
    types.Condition.ALWAYS: "always",
}

UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

# The records while the backend is open. An instance is one backend, and has one call at a time.
opened: Optional[Records] = None


class Lifecycle(exports.Lifecycle):
    def open(self, shard: int, settings: List[Tuple[str, str]]) -> types.Limits:
        global opened
        max_bytes = None
        for name, value in settings:
            if name != "max_bytes":
                raise invalid(f'unknown setting "{name}"; known: max_bytes')
            max_bytes = parse_bytes(name, value)
        opened = Records(max_bytes)
        return LIMITS

    def flush(self) -> None:
        records()

    def health(self) -> None:
        records()

    def close(self) -> None:
        global opened
        records()
        opened = None


class Store(exports.Store):
    def get_many(self, keys: List[str]) -> List[Optional[types.Entry]]:
        held, now = records(), unix_millis()
        check_batch(keys)
        return [entry(key, held.live(check_key(key), now)) for key in keys]

    def put_many(self, entries: List[types.Entry], condition: types.Condition) -> List[types.Outcome]:
        for item in entries:
            if len(item.value) > LIMITS.max_value_bytes:
                raise too_large(f"a value of {len(item.value)} bytes; at most {LIMITS.max_value_bytes} are taken")
        return write_many(entries, condition, lambda item: item.value)

    def delete_many(self, marks: List[types.Mark], condition: types.Condition) -> List[types.Outcome]:
        return write_many(marks, condition, lambda _: None)

    def scan(self, cursor: Optional[str], limit: int) -> types.Page:
        held, now = records(), unix_millis()
        if limit == 0:
            raise invalid("the limit of a scan is at least 1")
        start = 0 if cursor is None else parse_cursor(cursor, held.slots())
        end = min(held.slots(), start + limit * PASSED_PER_WANTED)
        marks: List[types.Mark] = []
        for slot, key, record in held.entries(start, end, now):
            marks.append(types.Mark(key, record.stamp, record.expires_at))
            if len(marks) == limit:
                end = slot + 1
                break
        return types.Page(marks, f"slot:{end}" if end < held.slots() else None)

    def stats(self) -> types.Usage:
        held, now = records(), unix_millis()
        sizes = [len(key.encode()) + len(record.value) for _, key, record in held.entries(0, held.slots(), now)]
        return types.Usage(len(sizes), sum(sizes))


def write_many(items: list, condition: types.Condition, value_of: Callable) -> List[types.Outcome]:
    held, now = records(), unix_millis()
    check_batch(items)
    for item in items:
        check_key(item.key)
    outcomes = []
    for item in items:
        record = Record(item.stamp, item.expires_at, value_of(item))
        try:
            applied = held.write(item.key, record, CONDITIONS[condition], now)
        except Full as full:
            raise Err(types.Error_QuotaExceeded(str(full)))
        outcomes.append(types.Outcome.APPLIED if applied else types.Outcome.STALE)
    return outcomes


def entry(key: str, record: Optional[Record]) -> Optional[types.Entry]:
    return None if record is None else types.Entry(key, record.stamp, record.expires_at, record.value)


def records() -> Records:
    if opened is None:
        raise Err(types.Error_Other("the backend is not open"))
    return opened


def check_batch(items: list) -> None:
    if len(items) > LIMITS.max_batch:
        raise too_large(f"a call of {len(items)} items; at most {LIMITS.max_batch} are taken")


def check_key(key: str) -> str:
    if not key:
        raise invalid("an empty key")
    # No character takes more than four bytes, so most keys needn't be encoded to know.
    if len(key) * 4 > LIMITS.max_key_bytes and len(key.encode()) > LIMITS.max_key_bytes:
        raise too_large(f"a key of {len(key.encode())} bytes; at most {LIMITS.max_key_bytes} are taken")
    return key


def parse_bytes(name: str, text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,15}) ?([A-Za-z]*)", text)
    if found is None or found[2] not in UNITS:
        raise invalid(f'the setting "{name}" is "{text[:64]}", which is not a size such as 64MiB')
    return int(found[1]) * UNITS[found[2]]


def parse_cursor(cursor: str, slots: int) -> int:
    found = re.fullmatch(r"slot:([0-9]{1,10})", cursor)
    if found is None or int(found[1]) >= slots:
        raise invalid("the cursor is not one of this backend's")
    return int(found[1])


def unix_millis() -> int:
    return time.time_ns() // 1_000_000


def invalid(text: str) -> Err:
    return Err(types.Error_InvalidArgument(text))


def too_large(text: str) -> Err:
    return Err(types.Error_TooLarge(text))
