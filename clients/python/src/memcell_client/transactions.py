"""The writes that a transaction can have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from . import _wire


@dataclass(frozen=True, slots=True)
class Append:
    """Append a MemCell."""

    memcell: Mapping[str, Any]

    def to_wire(self) -> dict[str, Any]:
        """As the API has it."""
        return {"op": "append", "memcell": _wire.write_fields(self.memcell)}


@dataclass(frozen=True, slots=True)
class Update:
    """Replace top-level fields of a MemCell."""

    event_id: str
    patch: Mapping[str, Any]

    def to_wire(self) -> dict[str, Any]:
        """As the API has it."""
        return {"op": "update", "event_id": self.event_id, "patch": _wire.write_fields(self.patch)}


@dataclass(frozen=True, slots=True)
class Delete:
    """Soft-delete a MemCell."""

    event_id: str
    deleted_by: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """As the API has it."""
        deletion = {"op": "delete", "event_id": self.event_id}
        return deletion if self.deleted_by is None else {**deletion, "deleted_by": self.deleted_by}


@dataclass(frozen=True, slots=True)
class HardDelete:
    """Delete a MemCell for good."""

    event_id: str

    def to_wire(self) -> dict[str, Any]:
        """As the API has it."""
        return {"op": "hard_delete", "event_id": self.event_id}


@dataclass(frozen=True, slots=True)
class Restore:
    """Undo a soft deletion."""

    event_id: str

    def to_wire(self) -> dict[str, Any]:
        """As the API has it."""
        return {"op": "restore", "event_id": self.event_id}


Operation: TypeAlias = Append | Update | Delete | HardDelete | Restore
"""One write of a transaction."""
