"""The synchronous storage. Made by `tools/unasync.py` from `_storage_async.py`: change that one."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from .. import _operations, _pace_sync, _wire
from .._client_sync import MemCellClient
from ..errors import Conflict, Invalid, NotFound
from ..transactions import Append, HardDelete
from . import _values

_ROUNDS = 5
"""How often a put begins again because others put and delete the same key meanwhile."""


class SyncMemCellStorage:
    """A key-value storage whose keys are event ids and whose values are MemCells as JSON text.

    Everything that can't be done raises a `MemCellError`: False and None mean that there is nothing under the key, and
    nothing else.
    """

    def __init__(
        self,
        client: MemCellClient,
        *,
        hard_delete: bool = False,
        id_field: _values.IdField = "event_id",
        at_once: int = 8,
        chunk: int = 500,
        owns_client: bool = True,
    ) -> None:
        """Uses a client.

        Args:
            client: what speaks to the host.
            hard_delete: whether deletions are for good. Softly deleted MemCells can be restored with the client.
            id_field: what the id is called in the values that are read: `event_id`, `_id` or `id`.
            at_once: how many deletions of a batch are underway at a time.
            chunk: how many keys of a batch one request reads, from 1 to 10,000.
            owns_client: whether `close` closes the client.
        """
        if at_once < 1 or not 1 <= chunk <= 10_000:
            raise ValueError("at_once is at least 1, and chunk is from 1 to 10000")
        if id_field not in _values.ID_FIELDS:
            raise ValueError(f"id_field is one of {', '.join(_values.ID_FIELDS)}")
        self._client = client
        self._hard_delete = hard_delete
        self._id_field = id_field
        self._at_once = at_once
        self._chunk = chunk
        self._owns_client = owns_client

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._client!r})"

    def __enter__(self) -> SyncMemCellStorage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, key: str, value: str) -> bool:
        """Stores a MemCell under a key, whether or not there is one, and answers True.

        Afterwards the MemCell has exactly the fields of `value`: those that the earlier one had and `value` lacks are
        gone. `event_id`, `created_at`, `updated_at` and `revision` are the host's, whatever `value` says; the revision
        grows, and `created_at` begins anew, for what is under the key is deleted for good and appended again in one
        transaction. A MemCell that was soft-deleted is replaced as well. Who reads at the same time sees the one or
        the other.

        Raises:
            Invalid: the key is no event id, or the value breaks the rules of MemCells.
            Conflict: others put and delete the same key all the time.
            Unsupported: there is one, and MongoDB is a standalone server, which has no transactions.
        """
        cell = _values.read(key, value)
        for last in (*[False] * (_ROUNDS - 1), True):
            try:
                self._client.append(cell)
                return True
            except Conflict:
                pass
            try:
                self._client.transaction([HardDelete(key), Append(cell)])
                return True
            except (NotFound, Conflict):
                if last:
                    raise
        raise AssertionError("the last round returns or raises")

    def get(self, key: str) -> str | None:
        """What is under a key; None if nothing is, also if the key is no event id."""
        if not key:
            return None
        try:
            text = self._client._send(_operations.get_text(key, None))
        except NotFound:
            return None
        return _values.write(_wire.load_object(text), self._id_field)

    def delete(self, key: str) -> bool:
        """Deletes what is under a key. False if nothing was."""
        if not key:
            return False
        try:
            if self._hard_delete:
                self._client.hard_delete(key)
            else:
                self._client.delete(key)
        except NotFound:
            return False
        except Invalid as error:
            if error.code == "invalid_id":
                return False
            raise
        return True

    def batch_get(self, keys: Sequence[str]) -> dict[str, str]:
        """What is under many keys, by key as it was given. Keys with nothing under them are missing."""
        found: dict[str, str] = {}
        wanted = list(dict.fromkeys(keys))
        for begin in range(0, len(wanted), self._chunk):
            part = wanted[begin : begin + self._chunk]
            by_id = self._client._send(_operations.get_many_raw(part))
            for key in part:
                if (cell := by_id.get(key.lower())) is not None:
                    found[key] = _values.write(cell, self._id_field)
        return found

    def batch_delete(self, keys: Sequence[str]) -> int:
        """Deletes what is under many keys, each for itself, and answers how many had something. If one fails, those
        before it are deleted.
        """
        deleted = _pace_sync.each(self.delete, list(dict.fromkeys(keys)), at_once=self._at_once)
        return sum(deleted)

    def close(self) -> None:
        """Closes the client, if it is the storage's own."""
        if self._owns_client:
            self._client.close()
