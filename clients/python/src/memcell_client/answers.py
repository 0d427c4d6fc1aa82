"""What the host answers beside MemCells. Fields that a newer host adds are in `extra`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar

from . import _wire
from .errors import MemCellError
from .memcells import MemCell

Validation: TypeAlias = Literal[
    "consistent", "in-flight", "missing", "different", "corrupt", "unavailable", "skipped", "deferred"
]
"""What came of comparing a read with the backend's copy."""

Mirrored: TypeAlias = Literal["none", "queued", "applied", "dropped", "timeout", "failed"]
"""How far the copies of a write had got when it was answered, at worst."""

JobKind: TypeAlias = Literal["backfill", "verify", "repair", "restore", "rekey"]
"""What a job does. `rekey` needs a host with encryption."""


@dataclass(frozen=True, slots=True)
class Read:
    """One MemCell, as MongoDB has it."""

    memcell: MemCell
    revision: int | None
    """None if another program wrote the MemCell without one."""
    validation: Validation | None
    """None if the read wasn't compared."""


@dataclass(frozen=True, slots=True)
class ReadMany:
    """The MemCells that there are of those asked for, by id."""

    items: dict[str, MemCell]
    validation: Validation | None
    """Of all of them, the worst."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the MemCells that match."""

    items: list[MemCell]
    next: str | None
    """The `cursor` of the following page; None at the end."""


@dataclass(frozen=True, slots=True)
class Written:
    """One MemCell after an append or update."""

    memcell: MemCell
    revision: int | None
    mirrored: Mirrored | None
    """None where an append was found done already by an earlier attempt that had got no answer."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What a deletion or restoration came to."""

    count: int
    """How many MemCells it changed."""
    revision: int | None
    """Of a single MemCell."""
    mirrored: Mirrored | None


@dataclass(frozen=True, slots=True)
class BatchItem:
    """What became of one element of a batch: it has either an `event_id` or an `error`."""

    index: int
    event_id: str | None
    error: MemCellError | None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of each element of a batch, in their order."""

    items: list[BatchItem]
    mirrored: Mirrored | None

    @property
    def failed(self) -> list[BatchItem]:
        """Those that weren't stored."""
        return [item for item in self.items if item.error is not None]


@dataclass(frozen=True, slots=True)
class OperationResult:
    """The result of one operation of a transaction: `memcell` of an append or update, `count` of the others."""

    op: str
    memcell: MemCell | None
    count: int | None


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """The results of a transaction, one per operation."""

    items: list[OperationResult]
    mirrored: Mirrored | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What one user did."""

    user_id: str
    total_count: int
    type_distribution: dict[str, int]
    earliest_activity: datetime | None = None
    latest_activity: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Activity:
        """Takes over what the API answered."""
        return build(cls, wire, earliest_activity=_wire.read_datetime, latest_activity=_wire.read_datetime)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One backend and its figures."""

    name: str
    plugin: str
    state: str
    """`loading`, `backfilling`, `catching-up`, `live`, `degraded`, `failed`, `closed` or `detached`."""
    shards: int
    format: str
    validates: bool
    queue_depth: int
    queue_bytes: int
    memory_bytes: int
    restarts: int
    sha256: str | None = None
    reason: str | None = None
    entries: int | None = None
    bytes: int | None = None
    lag_seconds: float | None = None
    """None until the backend has followed MongoDB for the first time."""
    tailed_by: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Backend:
        """Takes over what the API answered."""
        return build(cls, wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One place in which a MemCell and its copy differ."""

    path: str
    kind: str
    mongo: str | None
    kv: str | None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Difference:
        """Takes over what the API answered."""
        return build(cls, wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A copy that was found to differ, and still did when it was looked at again."""

    event_id: str
    backend: str
    kind: str
    differences: tuple[Difference, ...]
    first_seen: datetime
    confirmed_at: datetime
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Mismatch:
        """Takes over what the API answered."""
        differences = many(Difference.from_wire)
        read = _wire.read_datetime
        return build(cls, wire, differences=differences, first_seen=read, confirmed_at=read)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What came of repairing a mismatch."""

    mended: bool
    """Whether the copy agrees with MongoDB now; the mismatch is off the list then."""
    outcome: str
    """How the copy was found afterwards, as in `Validation`."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Repaired:
        """Takes over what the API answered."""
        return build(cls, wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """How far a job is."""

    examined: int
    estimate: int
    parts_done: int
    parts: int
    per_second: float
    seconds_left: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> JobProgress:
        """Takes over what the API answered."""
        return build(cls, wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A difference that a job found."""

    event_id: str
    kind: str
    paths: tuple[str, ...]
    repaired: bool
    reason: str | None = None
    """Of a copy that can't be read: why."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Finding:
        """Takes over what the API answered."""
        return build(cls, wire, paths=tuple)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What a job came to so far."""

    differences: int
    examined: int
    copied: int
    rejected: int
    missing: int
    stale: int
    different: int
    corrupt: int
    resurrected: int
    extra_copies: int
    """Copies of MemCells that MongoDB doesn't have; `extra` in the API."""
    unsettled: int
    foreign: int
    repaired: int
    restored: int
    present: int
    rewritten: int
    outdated: int
    examples: tuple[Finding, ...]
    keys: Mapping[str, int] | None = None
    """Of a rekey: how many copies need which key, by its id."""
    dictionaries: Mapping[str, int] | None = None
    """Of a rekey: how many copies need which dictionary, by its id."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> JobReport:
        """Takes over what the API answered."""
        renamed = {"extra_copies" if name == "extra" else name: value for name, value in wire.items()}
        return build(cls, renamed, examples=many(Finding.from_wire))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Work on a whole collection."""

    id: str
    kind: str
    backend: str
    state: str
    """`running`, `done`, `failed` or `cancelled`."""
    deep: bool
    created_at: datetime
    progress: JobProgress
    report: JobReport
    host: str | None = None
    reason: str | None = None
    rate: int | None = None
    ended_at: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Job:
        """Takes over what the API answered."""
        read = _wire.read_datetime
        nested = {"progress": JobProgress.from_wire, "report": JobReport.from_wire}
        return build(cls, wire, created_at=read, ended_at=read, **nested)

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing left to do."""
        return self.state != "running"

    @property
    def is_fine(self) -> bool:
        """Whether it did all that it was to do, and nothing is left to be mended."""
        report = self.report
        mended = report.differences <= report.repaired
        return self.state == "done" and mended and report.rejected == 0 and report.unsettled == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChange:
    """One change of the configuration that a reload took over."""

    key: str
    change: str
    """`added`, `removed`, `replaced` or `changed`."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> ConfigChange:
        """Takes over what the API answered."""
        return build(cls, wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendState:
    """The state of one backend."""

    name: str
    state: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> BackendState:
        """Takes over what the API answered."""
        return build(cls, wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether requests can be fulfilled."""

    status: str
    """`ready` or `not_ready`."""
    mongodb: str
    """`ok`, or why not."""
    backends: tuple[BackendState, ...]
    """For information: they don't decide."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Readiness:
        """Takes over what the API answered."""
        return build(cls, wire, backends=many(BackendState.from_wire))

    @property
    def is_ready(self) -> bool:
        """Whether MongoDB answers."""
        return self.status == "ready"


T = TypeVar("T")


def many(decode: Callable[[Mapping[str, Any]], T]) -> Callable[[Any], tuple[T, ...]]:
    """A decoder of lists."""

    def decode_all(items: Any) -> tuple[T, ...]:
        if not isinstance(items, list):
            raise _wire.unexpected("the answer has something else in the place of a list")
        return tuple(decode(item) for item in items)

    return decode_all


def build(cls: type[T], wire: Mapping[str, Any], **decoders: Callable[[Any], Any]) -> T:
    """A dataclass from its JSON. What it has no field for goes into `extra`.

    Raises:
        UnexpectedAnswer: if a field is missing.
    """
    if not isinstance(wire, Mapping):
        raise _wire.unexpected(f"the answer has no object in the place of a {cls.__name__}")
    known = {item.name for item in dataclasses.fields(cls) if item.name != "extra"}  # type: ignore[arg-type]
    values: dict[str, Any] = {"extra": {name: value for name, value in wire.items() if name not in known}}
    for name in known & wire.keys():
        value = wire[name]
        values[name] = decoders[name](value) if value is not None and name in decoders else value
    try:
        return cls(**values)
    except TypeError as error:
        raise _wire.unexpected(f"the answer lacks a field of a {cls.__name__}: {error}") from error
