"""A request and how its answer is read, without any sending."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote, urlencode

from . import _problems, _wire
from .answers import Mirrored, Validation

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Route:
    """An operation of the API, as its OpenAPI document names it."""

    method: str
    path: str
    parameters: tuple[str, ...] = ()
    """The query parameters."""
    is_repeatable: bool = False
    """Whether doing it twice is as good as doing it once."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, if it isn't an error."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def revision(self) -> int | None:
        """The revision that the answer is about."""
        text = self.headers.get("x-memcell-revision")
        return int(text) if text is not None and text.isascii() and text.isdigit() else None

    @property
    def validation(self) -> Validation | None:
        """What came of comparing."""
        return cast("Validation | None", self.headers.get("x-memcell-validation"))

    @property
    def mirrored(self) -> Mirrored | None:
        """How far the copies have got."""
        return cast("Mirrored | None", self.headers.get("x-memcell-mirrored"))


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request."""

    route: Route
    target: str
    """Path and query, encoded."""
    parse: Callable[[Answer], T]
    body: bytes | None = None
    is_repeatable: bool = False
    settle: Call[T] | None = None
    """What finds out, after a conflict, whether an earlier attempt without an answer was what is in the way."""
    accepts: frozenset[int] = frozenset()
    """Statuses that are answers although they look like errors."""

    def read(self, status: int, headers: Mapping[str, str], body: bytes) -> T:
        """What the answer says.

        Raises:
            MemCellError: what it says went wrong.
        """
        if status >= 300 and status not in self.accepts:
            raise _problems.from_answer(status, headers, body)
        return self.parse(Answer(status, headers, body))


Query = Mapping[str, object]


def call(
    route: Route,
    parse: Callable[[Answer], T],
    *,
    within: Mapping[str, str] | None = None,
    query: Query | None = None,
    body: Any = None,
    **more: Any,
) -> Call[T]:
    """Fills the path and the query of a route in. `within` has the parts of the path; in `query`, None is left out."""
    path = route.path
    for name, value in (within or {}).items():
        path = path.replace(f"{{{name}}}", _segment(name, value))
    pairs = [pair for name, value in (query or {}).items() for pair in _pairs(name, value)]
    target = f"{path}?{urlencode(pairs, errors='strict')}" if pairs else path
    content = None if body is None else _wire.dump(body)
    more.setdefault("is_repeatable", route.is_repeatable)
    return Call(route, target, parse, content, **more)


def _segment(name: str, value: str) -> str:
    if not value:
        raise _wire.invalid(f"{name} is a string that is not empty")
    try:
        encoded = quote(value, safe="", errors="strict")
    except UnicodeEncodeError as error:
        raise _wire.invalid("the text has half of a surrogate pair, which is no character", name) from error
    # A segment of dots would be taken for a step in the path.
    return encoded.replace(".", "%2E") if not encoded.strip(".") else encoded


def _pairs(name: str, value: object) -> list[tuple[str, str]]:
    match value:
        case None:
            return []
        case bool():
            return [(name, "true" if value else "false")]
        case datetime():
            return [(name, _wire.write_datetime(value, name))]
        case str():
            _wire.dump(value)
            return [(name, value)]
        case int():
            return [(name, str(value))]
        case list() | tuple():
            return [pair for inner in value for pair in _pairs(name, inner)]
    raise _wire.invalid(f"expected text, found {type(value).__name__}", name)
