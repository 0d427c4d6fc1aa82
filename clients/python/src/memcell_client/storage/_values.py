"""Values of the key-value storage: MemCells as JSON text, and what their ids are called in it."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeAlias

from .. import _wire

IdField: TypeAlias = Literal["event_id", "_id", "id"]
"""What a MemCell's id is called in the values that are read."""

ID_FIELDS: tuple[IdField, ...] = ("event_id", "_id", "id")
"""What it may be called in the values that are put."""


def read(key: str, value: str) -> dict[str, Any]:
    """The fields of a value that is put under a key, with the id as the API calls it.

    Raises:
        Invalid: it is no JSON object, or it has another id.
    """
    try:
        fields = json.loads(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _wire.invalid(f"a value is a MemCell as json text: {error}") from error
    if not isinstance(fields, dict):
        raise _wire.invalid("a value is a MemCell as json text, found something that is no object")
    for name in ID_FIELDS:
        given = fields.get(name)
        if isinstance(given, dict) and given.keys() == {"$oid"}:
            given = given["$oid"]
        if given is None or (isinstance(given, str) and given.lower() == key.lower()):
            fields.pop(name, None)
        elif name != "id":
            raise _wire.invalid("the MemCell has another id than the key", name)
    # Whoever reads a value and puts it again doesn't mean to delete or to restore.
    for note in ("deleted_at", "deleted_by"):
        if fields.get(note) is None:
            fields.pop(note, None)
    return {"event_id": key, **fields}


def write(cell: dict[str, Any], id_field: IdField) -> str:
    """The value of a MemCell that was read."""
    if id_field != "event_id" and "event_id" in cell:
        cell = {id_field if name == "event_id" else name: value for name, value in cell.items()}
    return json.dumps(cell, ensure_ascii=False, separators=(",", ":"))
