"""JSON as the host has it, from and to Python's values.

The datetimes of a MemCell that the host knows are `DATETIME_FIELDS`, all of them at its top level: they are
`datetime`s with a timezone on this side. Anywhere else the API's JSON doesn't tell a datetime from a string: one that
is given is stored as a datetime, and reads as a string in ISO 8601.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from .errors import Invalid, UnexpectedAnswer

T = TypeVar("T")

DATETIME_FIELDS = ("timestamp", "created_at", "updated_at", "deleted_at", "expires_at")
"""The top-level fields of a MemCell that are datetimes."""


def invalid(detail: str, field: str | None = None) -> Invalid:
    """The error for what can't be sent at all."""
    return Invalid(detail, code="invalid_argument", field=field)


def write_datetime(moment: datetime, field: str | None = None) -> str:
    """ISO 8601 in UTC. The host keeps milliseconds; what is finer is cut off there."""
    if moment.utcoffset() is None:
        raise invalid("a datetime needs a timezone: give it one, such as datetime.now(UTC)", field)
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def read_datetime(text: str) -> datetime:
    """The moment that the host wrote."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise unexpected("a datetime of the host can't be read") from error


def unexpected(detail: str) -> UnexpectedAnswer:
    """The error for an answer that the API doesn't have."""
    return UnexpectedAnswer(detail, code="unexpected_answer")


def read_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Turns the known datetimes of a MemCell into `datetime`s, in place. What Python has no datetime for (a year
    before 1 or after 9999) stays as the host wrote it.
    """
    for name in DATETIME_FIELDS:
        value = fields.get(name)
        if isinstance(value, str):
            try:
                fields[name] = read_datetime(value)
            except UnexpectedAnswer:
                continue
    return fields


def write_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON values of a MemCell or a patch.

    Raises:
        Invalid: for what JSON doesn't have, naming the field.
    """
    if not isinstance(fields, Mapping):
        raise invalid(f"a MemCell is a mapping, found {type(fields).__name__}")
    return {_name(name, ""): _top_level(name, value) for name, value in fields.items()}


def _top_level(name: str, value: object) -> object:
    if name in DATETIME_FIELDS and isinstance(value, datetime):
        return write_datetime(value, name)
    return _value(value, name)


def _name(name: object, path: str) -> str:
    if not isinstance(name, str):
        raise invalid(f"the name of a field is a string, found {type(name).__name__}", path or None)
    return name


def _value(value: object, path: str) -> object:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise invalid('json has no such number: give {"$numberDouble": "NaN"} or the like', path)
            return value
        case datetime():
            return {"$date": write_datetime(value, path)}
        case Mapping():
            return {_name(name, path): _value(inner, f"{path}.{name}") for name, inner in value.items()}
        case list() | tuple():
            return [_value(inner, f"{path}[{index}]") for index, inner in enumerate(value)]
    raise invalid(f"json has nothing for a {type(value).__name__}: convert it", path)


def dump(value: object) -> bytes:
    """A request body."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise invalid("the text has half of a surrogate pair, which is no character") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid(f"this makes no json: {error}") from error


def load(body: bytes) -> Any:
    """What an answer says."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise unexpected("the answer is not json") from error


def load_object(body: bytes) -> dict[str, Any]:
    """What an answer says that is an object."""
    value = load(body)
    if not isinstance(value, dict):
        raise unexpected("the answer is not a json object")
    return value


def field(fields: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A field of an answer that has to be there."""
    value = fields.get(name)
    if not isinstance(value, kind):
        raise unexpected(f"the answer has no {name!r} that is a {kind.__name__}")
    return value
