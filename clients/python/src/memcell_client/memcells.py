"""The document: a `dict` whose known fields can also be read as typed attributes."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import datetime
from itertools import count
from typing import Any, cast

from . import _wire


class MemCell(dict[str, Any]):
    """A MemCell as the host has it. It is a `dict`: unknown fields are kept, and a field that is null differs from one
    that is absent. The attributes answer None in both cases.

    `timestamp`, `created_at`, `updated_at`, `deleted_at` and `expires_at` are `datetime`s in UTC, at the top level
    only: what is nested deeper is a string, as it is in the API.
    """

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> MemCell:
        """Takes over what the API answered."""
        return cls(_wire.read_fields(fields))

    def to_json(self) -> str:
        """The text that the API has for it."""
        return _wire.dump(_wire.write_fields(self)).decode()

    @property
    def event_id(self) -> str:
        """Its id; empty for one that isn't stored yet."""
        given = self.get("event_id", "")
        # Another program may have given it an id that isn't text.
        return given if isinstance(given, str) else json.dumps(given, separators=(",", ":"))

    @property
    def user_id(self) -> str | None:
        """Whose it is."""
        return cast("str | None", self.get("user_id"))

    @property
    def group_id(self) -> str | None:
        """The group it belongs to."""
        return cast("str | None", self.get("group_id"))

    @property
    def timestamp(self) -> datetime | None:
        """When it took place."""
        return cast("datetime | None", self.get("timestamp"))

    @property
    def summary(self) -> str | None:
        """What it is about, in short."""
        return cast("str | None", self.get("summary"))

    @property
    def original_data(self) -> list[dict[str, Any]] | None:
        """The messages it was made from."""
        return cast("list[dict[str, Any]] | None", self.get("original_data"))

    @property
    def participants(self) -> list[str] | None:
        """Who took part."""
        return cast("list[str] | None", self.get("participants"))

    @property
    def type(self) -> str | None:
        """Its kind, such as `Conversation`."""
        return cast("str | None", self.get("type"))

    @property
    def subject(self) -> str | None:
        """Its title."""
        return cast("str | None", self.get("subject"))

    @property
    def keywords(self) -> list[str] | None:
        """What to find it by."""
        return cast("list[str] | None", self.get("keywords"))

    @property
    def linked_entities(self) -> list[str] | None:
        """Ids of entities it mentions."""
        return cast("list[str] | None", self.get("linked_entities"))

    @property
    def episode(self) -> str | None:
        """The story of it."""
        return cast("str | None", self.get("episode"))

    @property
    def foresight_memories(self) -> list[dict[str, Any]] | None:
        """What may follow from it."""
        return cast("list[dict[str, Any]] | None", self.get("foresight_memories"))

    @property
    def event_log(self) -> dict[str, Any] | None:
        """Single facts in it."""
        return cast("dict[str, Any] | None", self.get("event_log"))

    @property
    def extend(self) -> dict[str, Any] | None:
        """Whatever else belongs to it."""
        return cast("dict[str, Any] | None", self.get("extend"))

    @property
    def revision(self) -> int | None:
        """Grows with every change."""
        return cast("int | None", self.get("revision"))

    @property
    def created_at(self) -> datetime | None:
        """When it was stored."""
        return cast("datetime | None", self.get("created_at"))

    @property
    def updated_at(self) -> datetime | None:
        """When it was changed last."""
        return cast("datetime | None", self.get("updated_at"))

    @property
    def deleted_at(self) -> datetime | None:
        """When it was soft-deleted."""
        return cast("datetime | None", self.get("deleted_at"))

    @property
    def deleted_by(self) -> str | None:
        """Who soft-deleted it."""
        return cast("str | None", self.get("deleted_by"))

    @property
    def expires_at(self) -> datetime | None:
        """When it is removed by itself, with a host that knows this field."""
        return cast("datetime | None", self.get("expires_at"))


_process = os.urandom(5).hex()
_counter = count(int.from_bytes(os.urandom(3)))
_counting = threading.Lock()


def _forked() -> None:
    global _process, _counting
    _process, _counting = os.urandom(5).hex(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def new_event_id() -> str:
    """A fresh id, as MongoDB's drivers make them. An append that has one can be tried again safely."""
    with _counting:
        number = next(_counter) & 0xFFFFFF
    return f"{int(time.time()) & 0xFFFFFFFF:08x}{_process}{number:06x}"
