"""How a host is doing as a whole. Fields that a newer host adds are in `extra`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from . import _wire
from .answers import Backend, build, many


@dataclass(frozen=True, slots=True, kw_only=True)
class MongoDbState:
    """Whether MongoDB answers, and what of it the host uses."""

    reachable: bool
    server: str
    """The connection string without its secrets, or `embedded`."""
    database: str
    collection: str
    problem: str | None = None
    """Why it isn't reachable."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> MongoDbState:
        """Takes over what the API answered."""
        return build(cls, wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationTotals:
    """Operations since the host was started."""

    reads: int
    writes: int
    failed: int
    """Those of both that failed through no fault of the caller."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> OperationTotals:
        """Takes over what the API answered."""
        return build(cls, wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class MismatchCount:
    """Confirmed mismatches."""

    count: int
    version: int
    """Grows whenever the list changes: as long as it stays, there is no need to get the list again."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> MismatchCount:
        """Takes over what the API answered."""
        return build(cls, wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSample:
    """One backend in one interval."""

    name: str
    state: str
    """At the end of the interval, as are the lag (None until it has followed MongoDB), the queue and the memory."""
    lag_seconds: float | None
    queue_depth: int
    memory_bytes: int
    written: int
    """Entries and removals handed to its plugin."""
    read: int
    """Keys asked of its plugin."""
    validations: dict[str, int]
    """Validated reads by outcome; outcomes that there were none of are left out."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> BackendSample:
        """Takes over what the API answered."""
        return build(cls, wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What happened in one interval, and how the backends were at its end."""

    number: int
    """Counts up by one, from 1, since the host was started."""
    at: datetime
    """The end of the interval."""
    seconds: float
    """How long the interval was."""
    reads: int
    writes: int
    failed: int
    """Operations that failed through no fault of the caller."""
    backends: tuple[BackendSample, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Sample:
        """Takes over what the API answered."""
        return build(cls, wire, at=_wire.read_datetime, backends=many(BackendSample.from_wire))


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The last minutes."""

    interval_seconds: float
    """How often a sample is taken."""
    most: int
    """How many are kept."""
    samples: tuple[Sample, ...]
    """The oldest first."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> History:
        """Takes over what the API answered."""
        return build(cls, wire, samples=many(Sample.from_wire))


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """How a host is doing."""

    host: str
    """Its name among others."""
    version: str
    started_at: datetime
    """When it was started. Counts and numbers begin anew then."""
    uptime_seconds: float
    mongodb: MongoDbState
    operations: OperationTotals
    mismatches: MismatchCount
    backends: tuple[Backend, ...]
    history: History
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Overview:
        """Takes over what the API answered."""
        return build(
            cls,
            wire,
            started_at=_wire.read_datetime,
            mongodb=MongoDbState.from_wire,
            operations=OperationTotals.from_wire,
            mismatches=MismatchCount.from_wire,
            backends=many(Backend.from_wire),
            history=History.from_wire,
        )
