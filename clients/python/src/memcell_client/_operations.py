"""Every operation of the API: what is sent, and what its answer means. Both clients are made of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from . import _problems, _wire
from ._calls import Answer, Call, Query, Route, call
from .answers import (
    Activity,
    Backend,
    BatchItem,
    BatchResult,
    Changed,
    ConfigChange,
    Job,
    JobKind,
    Mismatch,
    OperationResult,
    Page,
    Read,
    Readiness,
    ReadMany,
    Repaired,
    TransactionResult,
    Written,
    many,
)
from .errors import Conflict
from .memcells import MemCell
from .overview import Overview
from .transactions import Operation

Match: TypeAlias = Literal["any", "all"]
Visibility: TypeAlias = Literal["exclude", "include", "only"]
Order: TypeAlias = Literal["newest", "oldest"]

_RANGE = ("start", "end")
_FILTER = ("user_id", "group_id", "participant", "keyword", "match", "type", "deleted", *_RANGE)
_SCOPE = ("user_id", *_RANGE)
_DELETION = ("hard", "deleted_by")

APPEND = Route("POST", "/v1/memcells")
LIST = Route("GET", "/v1/memcells", (*_FILTER, "limit", "skip", "order", "cursor"), is_repeatable=True)
DELETE_MANY = Route("DELETE", "/v1/memcells", (*_SCOPE, *_DELETION))
APPEND_MANY = Route("POST", "/v1/memcells/batch")
GET_MANY = Route("POST", "/v1/memcells/batch-get", is_repeatable=True)
COUNT = Route("GET", "/v1/memcells/count", _FILTER, is_repeatable=True)
RESTORE_MANY = Route("POST", "/v1/memcells/restore", _SCOPE)
GET = Route("GET", "/v1/memcells/{event_id}", ("validate",), is_repeatable=True)
UPDATE = Route("PATCH", "/v1/memcells/{event_id}")
DELETE = Route("DELETE", "/v1/memcells/{event_id}", _DELETION)
RESTORE = Route("POST", "/v1/memcells/{event_id}/restore")
LATEST = Route("GET", "/v1/users/{user_id}/latest", ("limit",), is_repeatable=True)
ACTIVITY = Route("GET", "/v1/users/{user_id}/activity", _RANGE, is_repeatable=True)
TRANSACT = Route("POST", "/v1/transactions")
ORDER_JOB = Route("POST", "/v1/jobs")
LIST_JOBS = Route("GET", "/v1/jobs", is_repeatable=True)
GET_JOB = Route("GET", "/v1/jobs/{id}", is_repeatable=True)
CANCEL_JOB = Route("DELETE", "/v1/jobs/{id}", is_repeatable=True)
OVERVIEW = Route("GET", "/v1/overview", ("since",), is_repeatable=True)
CONFIG = Route("GET", "/v1/config", is_repeatable=True)
RELOAD = Route("POST", "/v1/config/reload")
BACKENDS = Route("GET", "/v1/backends", is_repeatable=True)
MISMATCHES = Route("GET", "/v1/mismatches", is_repeatable=True)
REPAIR_MISMATCH = Route("POST", "/v1/mismatches/{backend}/{event_id}/repair")
HEALTH = Route("GET", "/healthz", is_repeatable=True)
READY = Route("GET", "/readyz", is_repeatable=True)
METRICS = Route("GET", "/metrics", is_repeatable=True)
OPENAPI = Route("GET", "/openapi.json", is_repeatable=True)

ROUTES: tuple[Route, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Route))
"""All of them; a test compares them with what a running host has."""


def append(memcell: Mapping[str, Any]) -> Call[Written]:
    """One MemCell. With an `event_id` it can be tried again: whether it was there already is then found out."""
    wire = _wire.write_fields(memcell)
    event_id = wire.get("event_id")
    if not isinstance(event_id, str) or not event_id:
        return call(APPEND, _written, body=wire)

    def found(answer: Answer) -> Written:
        stored = _wire.load_object(answer.body)
        if not is_same(wire, stored):
            raise Conflict("the event_id is taken by another MemCell", code="already_exists")
        return Written(MemCell.from_wire(stored), answer.revision, None)

    settle = call(GET, found, within={"event_id": event_id}, query={"validate": False})
    return call(APPEND, _written, body=wire, is_repeatable=True, settle=settle)


def is_same(sent: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Whether a MemCell is stored as it was sent. The host's own fields don't count, and datetimes are compared as
    moments to the millisecond.
    """
    own = {"event_id", "revision", "created_at", "updated_at"}
    if {*sent} - own != {*stored} - own:
        return False
    return all(_same_value(value, stored[name], name) for name, value in sent.items() if name not in own)


def _same_value(sent: Any, stored: Any, name: str = "") -> bool:
    if isinstance(sent, dict) and sent.keys() == {"$date"}:
        sent = sent["$date"]
    elif isinstance(sent, dict) and isinstance(stored, dict):
        return set(sent) == set(stored) and all(_same_value(sent[key], stored[key]) for key in sent)
    elif isinstance(sent, list) and isinstance(stored, list):
        return len(sent) == len(stored) and all(map(_same_value, sent, stored))
    elif name not in _wire.DATETIME_FIELDS:
        return type(sent) is type(stored) and bool(sent == stored)
    return bool(_moment(sent) == _moment(stored))


def _moment(value: Any) -> Any:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return value
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def append_many(memcells: Iterable[Mapping[str, Any]]) -> Call[BatchResult]:
    """Many MemCells, each for itself."""
    return call(APPEND_MANY, _batch, body=[_wire.write_fields(memcell) for memcell in memcells])


def get(event_id: str, validate: bool | None) -> Call[Read]:
    """One MemCell."""
    return call(GET, _read, within={"event_id": event_id}, query={"validate": validate})


def get_text(event_id: str, validate: bool | None) -> Call[bytes]:
    """One MemCell as the bytes that the host wrote."""
    return call(GET, lambda answer: answer.body, within={"event_id": event_id}, query={"validate": validate})


def get_many(event_ids: Iterable[str], fields: Iterable[str] | None, validate: bool | None) -> Call[ReadMany]:
    """Many MemCells by their ids."""
    if isinstance(event_ids, str):
        raise _wire.invalid("event_ids is a list of ids, not a single one")
    wanted: dict[str, Any] = {"event_ids": list(event_ids)}
    if fields is not None:
        wanted["fields"] = list(fields)
    if validate is not None:
        wanted["validate"] = validate
    return call(GET_MANY, _read_many, body=wanted)


def get_many_raw(event_ids: list[str]) -> Call[dict[str, dict[str, Any]]]:
    """Many MemCells by their ids, as the API has them."""
    return call(
        GET_MANY,
        lambda answer: _wire.field(_wire.load_object(answer.body), "items", dict),
        body={"event_ids": event_ids},
    )


def update(event_id: str, patch: Mapping[str, Any]) -> Call[Written]:
    """New values for top-level fields."""
    return call(UPDATE, _written, within={"event_id": event_id}, body=_wire.write_fields(patch))


def delete(event_id: str, *, hard: bool = False, deleted_by: str | None = None) -> Call[Changed]:
    """A deletion, soft or for good."""
    how = {"hard": hard or None, "deleted_by": deleted_by}
    return call(DELETE, _deleted, within={"event_id": event_id}, query=how)


def restore(event_id: str) -> Call[Changed]:
    """The undoing of a soft deletion."""
    return call(RESTORE, _restored, within={"event_id": event_id})


def delete_many(scope: Query, *, hard: bool = False, deleted_by: str | None = None) -> Call[Changed]:
    """Deletions by user and time."""
    return call(DELETE_MANY, _deleted, query={**scope, "hard": hard or None, "deleted_by": deleted_by})


def restore_many(scope: Query) -> Call[Changed]:
    """Restorations by user and time."""
    return call(RESTORE_MANY, _restored, query=scope)


def selection(
    *,
    user_id: str | None,
    group_id: str | None,
    participants: Sequence[str],
    keywords: Sequence[str],
    match: Match | None,
    type: str | None,
    start: datetime | None,
    end: datetime | None,
    deleted: Visibility | None,
) -> Query:
    """The conditions of a list or count."""
    for name, given in (("participants", participants), ("keywords", keywords)):
        if isinstance(given, str):
            raise _wire.invalid(f"{name} is a list of words, not a single one")
    words: Query = {"participant": list(participants), "keyword": list(keywords), "match": match}
    return {
        "user_id": user_id,
        "group_id": group_id,
        **words,
        "type": type,
        "start": start,
        "end": end,
        "deleted": deleted,
    }


def page(
    query: Query, *, limit: int | None, skip: int | None = None, order: Order | None = None, cursor: str | None = None
) -> Call[Page]:
    """A part of a list."""
    return call(LIST, _page, query={**query, "limit": limit, "skip": skip or None, "order": order, "cursor": cursor})


def count(query: Query) -> Call[int]:
    """How many match."""
    return call(COUNT, _number("count"), query=query)


def latest(user_id: str, limit: int | None) -> Call[list[MemCell]]:
    """A user's newest MemCells."""
    return call(LATEST, lambda answer: _page(answer).items, within={"user_id": user_id}, query={"limit": limit})


def activity(user_id: str, start: datetime | None, end: datetime | None) -> Call[Activity]:
    """What a user did."""
    range_ = {"start": start, "end": end}
    return call(ACTIVITY, _object(Activity), within={"user_id": user_id}, query=range_)


def transact(operations: Iterable[Operation]) -> Call[TransactionResult]:
    """Several writes, all or none."""
    return call(TRANSACT, _transaction, body={"operations": [operation.to_wire() for operation in operations]})


def order_job(kind: JobKind | str, backend: str | None, *, deep: bool, sweep: bool, rate: int | None) -> Call[Job]:
    """The beginning of a job."""
    order: dict[str, Any] = {"kind": kind, "backend": backend, "deep": deep, "sweep": sweep, "rate": rate}
    return call(ORDER_JOB, _object(Job), body={name: value for name, value in order.items() if value is not None})


def list_jobs() -> Call[list[Job]]:
    """All jobs."""
    return call(LIST_JOBS, _items(Job))


def get_job(id: str) -> Call[Job]:
    """One job."""
    return call(GET_JOB, _object(Job), within={"id": id})


def cancel_job(id: str) -> Call[Job]:
    """The end of a job."""
    return call(CANCEL_JOB, _object(Job), within={"id": id})


def overview(since: int) -> Call[Overview]:
    """How the host is doing."""
    return call(OVERVIEW, _object(Overview), query={"since": since or None})


def config() -> Call[dict[str, Any]]:
    """The configuration in force."""
    return call(CONFIG, lambda answer: _wire.load_object(answer.body))


def reload_config() -> Call[list[ConfigChange]]:
    """What the configuration file says by now."""
    changes = many(ConfigChange.from_wire)
    return call(RELOAD, lambda answer: list(changes(_wire.load_object(answer.body).get("changes"))))


def backends() -> Call[list[Backend]]:
    """All backends."""
    return call(BACKENDS, _items(Backend))


def mismatches() -> Call[list[Mismatch]]:
    """Confirmed mismatches."""
    return call(MISMATCHES, _items(Mismatch))


def repair_mismatch(backend: str, event_id: str) -> Call[Repaired]:
    """The mending of one copy."""
    return call(REPAIR_MISMATCH, _object(Repaired), within={"backend": backend, "event_id": event_id})


def health() -> Call[str]:
    """Whether the process runs."""
    return call(HEALTH, lambda answer: _wire.field(_wire.load_object(answer.body), "status", str))


def ready() -> Call[Readiness]:
    """Whether requests can be fulfilled; that they can't is an answer, too."""

    def parse(answer: Answer) -> Readiness:
        is_own = answer.headers.get("content-type", "").startswith("application/json")
        if answer.status != 200 and not is_own:
            raise _problems.from_answer(answer.status, answer.headers, answer.body)
        return Readiness.from_wire(_wire.load_object(answer.body))

    return call(READY, parse, accepts=frozenset({503}))


def metrics() -> Call[str]:
    """All figures."""
    return call(METRICS, lambda answer: answer.body.decode())


def openapi() -> Call[dict[str, Any]]:
    """The host's description of its API."""
    return call(OPENAPI, lambda answer: _wire.load_object(answer.body))


def _read(answer: Answer) -> Read:
    return Read(MemCell.from_wire(_wire.load_object(answer.body)), answer.revision, answer.validation)


def _written(answer: Answer) -> Written:
    return Written(MemCell.from_wire(_wire.load_object(answer.body)), answer.revision, answer.mirrored)


def _read_many(answer: Answer) -> ReadMany:
    items = _wire.field(_wire.load_object(answer.body), "items", dict)
    return ReadMany({event_id: MemCell.from_wire(cell) for event_id, cell in items.items()}, answer.validation)


def _page(answer: Answer) -> Page:
    body = _wire.load_object(answer.body)
    items = _wire.field(body, "items", list)
    return Page([MemCell.from_wire(cell) for cell in items], body.get("next"))


def _batch(answer: Answer) -> BatchResult:
    def item(wire: Mapping[str, Any]) -> BatchItem:
        error = wire.get("error")
        return BatchItem(wire["index"], wire.get("event_id"), None if error is None else _problems.of_element(error))

    items = _wire.field(_wire.load_object(answer.body), "items", list)
    return BatchResult([item(wire) for wire in items], answer.mirrored)


def _transaction(answer: Answer) -> TransactionResult:
    def result(wire: Mapping[str, Any]) -> OperationResult:
        cell = wire.get("memcell")
        changed = wire.get("deleted", wire.get("restored"))
        return OperationResult(wire["op"], None if cell is None else MemCell.from_wire(cell), changed)

    items = _wire.field(_wire.load_object(answer.body), "items", list)
    return TransactionResult([result(wire) for wire in items], answer.mirrored)


def _deleted(answer: Answer) -> Changed:
    return Changed(_number("deleted")(answer), answer.revision, answer.mirrored)


def _restored(answer: Answer) -> Changed:
    return Changed(_number("restored")(answer), answer.revision, answer.mirrored)


def _number(name: str) -> Any:
    return lambda answer: _wire.field(_wire.load_object(answer.body), name, int)


def _object(kind: Any) -> Any:
    return lambda answer: kind.from_wire(_wire.load_object(answer.body))


def _items(kind: Any) -> Any:
    decode = many(kind.from_wire)
    return lambda answer: list(decode(_wire.load_object(answer.body).get("items")))
