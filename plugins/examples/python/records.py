"""The records of the example backend, and the contract's rules about them. Knows nothing of WebAssembly."""

from dataclasses import dataclass
from typing import Iterator, Optional

# What a record takes besides its key and value, about: the objects around them, and their places in list and dictionary.
OVERHEAD_BYTES = 400

# How many slots each write looks at for records that have expired. More than one, so that they can't pile up.
SWEPT_PER_WRITE = 2


class Full(Exception):
    """There is no room for an entry."""


@dataclass(slots=True)
class Record:
    """An entry, or the tombstone of one (`value` is `None`)."""

    stamp: int
    expires_at: Optional[int]
    value: Optional[bytes]

    def has_expired(self, now: int) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class Records:
    """Records by key, in slots that never move: what a scan can walk along while they come and go."""

    def __init__(self, max_bytes: Optional[int]) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._by_key: dict[str, Record] = {}
        self._slot_of: dict[str, int] = {}
        self._slots: list[Optional[str]] = []
        self._empty: list[int] = []
        self._hand = 0

    def live(self, key: str, now: int) -> Optional[Record]:
        """The entry of a key, if it has one that has not expired."""
        record = self._by_key.get(key)
        if record is None or record.value is None or record.has_expired(now):
            return None
        return record

    def write(self, key: str, record: Record, condition: str, now: int) -> bool:
        """Stores a record if `condition` (`newer`, `not-older`, `always`) allows it, and says whether it did.

        Raises `Full` if it is an entry for which there is no room.
        """
        self._sweep(SWEPT_PER_WRITE, now)
        stored = self._by_key.get(key)
        # An expired record counts as none: whether it still lies there is chance.
        if stored is not None and not stored.has_expired(now):
            if condition == "always":
                record.stamp = max(record.stamp, stored.stamp)
            elif record.stamp < stored.stamp or (condition == "newer" and record.stamp == stored.stamp):
                return False
        if not self._has_room(key, record):
            self._sweep(len(self._slots), now)
            if not self._has_room(key, record):
                raise Full(f"{self._held_bytes} of max_bytes = {self._max_bytes} bytes are in use")
        self._store(key, record)
        return True

    def slots(self) -> int:
        """How many slots there are, empty ones included. Never becomes less, so that a cursor stays good."""
        return len(self._slots)

    def entries(self, start: int, end: int, now: int) -> Iterator[tuple[int, str, Record]]:
        """The live entries in these slots, each with its slot."""
        for slot in range(start, end):
            key = self._slots[slot]
            record = self.live(key, now) if key is not None else None
            if record is not None:
                yield slot, key, record

    def _has_room(self, key: str, record: Record) -> bool:
        if self._max_bytes is None or record.value is None:
            return True
        stored = self._by_key.get(key)
        before = 0 if stored is None else _size(key, stored)
        after = _size(key, record)
        # What makes things no worse passes.
        return after <= before or self._held_bytes - before + after <= self._max_bytes

    def _store(self, key: str, record: Record) -> None:
        stored = self._by_key.get(key)
        if stored is not None:
            self._held_bytes -= _size(key, stored)
        elif self._empty:
            slot = self._empty.pop()
            self._slots[slot] = key
            self._slot_of[key] = slot
        else:
            self._slot_of[key] = len(self._slots)
            self._slots.append(key)
        self._by_key[key] = record
        self._held_bytes += _size(key, record)

    def _sweep(self, slots: int, now: int) -> None:
        """Looks at the next `slots` slots, round and round, and frees those whose records have expired."""
        for _ in range(min(slots, len(self._slots))):
            self._hand = (self._hand + 1) % len(self._slots)
            key = self._slots[self._hand]
            if key is not None and self._by_key[key].has_expired(now):
                self._held_bytes -= _size(key, self._by_key.pop(key))
                del self._slot_of[key]
                self._slots[self._hand] = None
                self._empty.append(self._hand)


def _size(key: str, record: Record) -> int:
    return OVERHEAD_BYTES + len(key) + (0 if record.value is None else len(record.value))
