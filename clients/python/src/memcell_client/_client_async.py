"""The asynchronous client. The synchronous one is made from this file by `tools/unasync.py`."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

import httpx

from . import _operations, _pace_async, _problems
from ._calls import Call
from ._lists import ListReader
from ._operations import Match, Order, Visibility
from ._retries import Attempts, Retries
from ._settings import Settings
from .answers import (
    Activity,
    Backend,
    BatchResult,
    Changed,
    ConfigChange,
    Job,
    JobKind,
    Mismatch,
    Page,
    Read,
    Readiness,
    ReadMany,
    Repaired,
    TransactionResult,
    Written,
)
from .errors import Conflict, MemCellError, Timeout
from .memcells import MemCell
from .overview import Overview
from .transactions import Operation

T = TypeVar("T")

_log = logging.getLogger("memcell_client")


class AsyncMemCellClient:
    """A memcell host, over HTTP. It can be used by any number of tasks at a time.

    Every operation raises a `MemCellError` if it fails: see `memcell_client.errors`.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        verify: bool | str | os.PathLike[str] | ssl.SSLContext = True,
        timeout: float = 35.0,
        connect_timeout: float = 5.0,
        max_connections: int = 100,
        retries: Retries | None = None,
        trust_env: bool = True,
    ) -> None:
        """Connects to nothing yet.

        Args:
            base_url: `http://HOST:PORT` or `https://HOST:PORT`.
            token: the bearer token.
            token_file: the file that holds the token; read again whenever it changes.
            verify: the file of the certificate authority that the host's certificate is from, if it isn't a public one.
            timeout: seconds without any sign of an answer; longer than the host's `http.request_timeout` (30 s), so
            that
                the host says what became of a request.
            connect_timeout: seconds until there is a connection.
            max_connections: open at a time; more requests wait.
            retries: when a request is sent again.
            trust_env: whether environment variables such as `HTTPS_PROXY` and `SSL_CERT_FILE` count.

        Raises:
            ValueError: for what makes no sense.
            OSError: if a file can't be read.
        """
        self._settings = Settings.checked(
            base_url,
            token=token,
            token_file=token_file,
            verify=verify,
            timeout=timeout,
            connect_timeout=connect_timeout,
            max_connections=max_connections,
            retries=retries,
            trust_env=trust_env,
        )
        self._http = httpx.AsyncClient(**self._settings.http())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings!r})"

    async def __aenter__(self) -> AsyncMemCellClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes all connections. The client can't be used afterwards."""
        await self._http.aclose()

    # One MemCell

    async def append(self, memcell: Mapping[str, Any]) -> Written:
        """Stores a new MemCell. It needs a `timestamp`; an `event_id` is kept, and made by the host if there is none.
        `created_at`, `updated_at` and `revision` are the host's to set.

        With an `event_id` (see `new_event_id`) an attempt that got no answer is repeated. If it is found stored then,
        just as it was sent, that is a success.

        Raises:
            Conflict: the `event_id` is taken.
            Invalid: a field breaks the rules; `field` names it.
        """
        return await self._send(_operations.append(memcell))

    async def get(self, event_id: str, *, validate: bool | None = None) -> Read:
        """What MongoDB has. `validate` says whether it is compared with a backend's copy; by default the host decides.

        Raises:
            NotFound: there is none, or it is soft-deleted.
        """
        return await self._send(_operations.get(event_id, validate))

    async def update(self, event_id: str, patch: Mapping[str, Any]) -> Written:
        """Replaces the given top-level fields as a whole and leaves all others. None makes a field null; nothing
        removes one.

        Raises:
            NotFound: there is none, or it is soft-deleted.
            Invalid: a field breaks the rules, or isn't the caller's to set.
        """
        return await self._send(_operations.update(event_id, patch))

    async def delete(self, event_id: str, *, deleted_by: str | None = None) -> Changed:
        """Deletes softly: `restore` brings it back.

        Raises:
            NotFound: there is none, or it is soft-deleted already.
        """
        return await self._send(_operations.delete(event_id, deleted_by=deleted_by))

    async def hard_delete(self, event_id: str) -> Changed:
        """Deletes for good, also what is soft-deleted.

        Raises:
            NotFound: there is none.
        """
        return await self._send(_operations.delete(event_id, hard=True))

    async def restore(self, event_id: str) -> Changed:
        """Undoes a soft deletion. `count` is 0 if it was not deleted.

        Raises:
            NotFound: there is none.
        """
        return await self._send(_operations.restore(event_id))

    # Many by their ids

    async def append_many(self, memcells: Iterable[Mapping[str, Any]]) -> BatchResult:
        """Stores many, each for itself: one that is refused doesn't hinder the others, and the result says which."""
        return await self._send(_operations.append_many(memcells))

    async def get_many(
        self, event_ids: Iterable[str], *, fields: Iterable[str] | None = None, validate: bool | None = None
    ) -> ReadMany:
        """Those that there are, by id; up to 10,000. With `fields`, only these top-level fields and `event_id`."""
        return await self._send(_operations.get_many(event_ids, fields, validate))

    # Those that match

    async def find(
        self,
        *,
        user_id: str | None = None,
        group_id: str | None = None,
        participants: Sequence[str] = (),
        keywords: Sequence[str] = (),
        match: Match | None = None,
        type: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        deleted: Visibility | None = None,
        order: Order | None = None,
        skip: int = 0,
        limit: int | None = None,
        page_size: int = 500,
        stream: bool = False,
    ) -> AsyncIterator[MemCell]:
        """Every MemCell that meets all conditions, the newest first unless `order` says otherwise.

        Args:
            user_id: of this user; with `start` or `end` also those that have the user among their participants.
            group_id: of this group.
            participants: with one of these participants, or all of them: see `match`.
            keywords: with one of these keywords, or all of them.
            match: `any` (the default) or `all`.
            type: of this type.
            start: with a timestamp at or after this.
            end: with a timestamp before this.
            deleted: whether soft-deleted ones are seen: `exclude` (the default), `include` or `only`.
            order: `newest` or `oldest`.
            skip: how many to leave out first.
            limit: how many at the most.
            page_size: how many each request asks for. A page that fails is asked for again.
            stream: asks for all in one request and reads them as they come. It is the fastest way through a large
                collection; if the connection breaks, the iterator raises, and can't go on.

        Memory is bounded by a page, or with `stream` by a MemCell.
        """
        if page_size < 1 or skip < 0 or (limit is not None and limit < 0):
            raise ValueError("page_size is at least 1, and skip and limit are at least 0")
        if limit == 0:
            return
        query = _operations.selection(
            user_id=user_id,
            group_id=group_id,
            participants=participants,
            keywords=keywords,
            match=match,
            type=type,
            start=start,
            end=end,
            deleted=deleted,
        )
        if stream:
            # The API's limit of 0 is none.
            call = _operations.page(query, limit=limit or 0, skip=skip, order=order)
            async for cell in self._stream(call):
                yield cell
            return
        left, cursor = limit, None
        while True:
            size = page_size if left is None else min(page_size, left)
            page = await self._send(
                _operations.page(query, limit=size, skip=skip if cursor is None else 0, order=order, cursor=cursor)
            )
            for cell in page.items:
                yield cell
            left, cursor = None if left is None else left - len(page.items), page.next
            if cursor is None or left == 0:
                return

    async def find_page(
        self,
        *,
        user_id: str | None = None,
        group_id: str | None = None,
        participants: Sequence[str] = (),
        keywords: Sequence[str] = (),
        match: Match | None = None,
        type: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        deleted: Visibility | None = None,
        order: Order | None = None,
        skip: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """One page of `find`, for those who turn pages themselves: `cursor` is the `next` of the page before, with all
        conditions as they were.
        """
        if limit < 1:
            raise ValueError("limit is at least 1: find goes through all")
        query = _operations.selection(
            user_id=user_id,
            group_id=group_id,
            participants=participants,
            keywords=keywords,
            match=match,
            type=type,
            start=start,
            end=end,
            deleted=deleted,
        )
        return await self._send(_operations.page(query, limit=limit, skip=skip, order=order, cursor=cursor))

    async def count(
        self,
        *,
        user_id: str | None = None,
        group_id: str | None = None,
        participants: Sequence[str] = (),
        keywords: Sequence[str] = (),
        match: Match | None = None,
        type: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        deleted: Visibility | None = None,
    ) -> int:
        """How many meet all conditions, which are those of `find`."""
        query = _operations.selection(
            user_id=user_id,
            group_id=group_id,
            participants=participants,
            keywords=keywords,
            match=match,
            type=type,
            start=start,
            end=end,
            deleted=deleted,
        )
        return await self._send(_operations.count(query))

    async def delete_many(
        self,
        *,
        user_id: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        deleted_by: str | None = None,
    ) -> Changed:
        """Deletes softly what a user has, or what happened in `[start, end)`, or both. Without any of them it is
        refused.
        """
        scope = {"user_id": user_id, "start": start, "end": end}
        return await self._send(_operations.delete_many(scope, deleted_by=deleted_by))

    async def hard_delete_many(
        self, *, user_id: str | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> Changed:
        """As `delete_many`, for good."""
        scope = {"user_id": user_id, "start": start, "end": end}
        return await self._send(_operations.delete_many(scope, hard=True))

    async def restore_many(
        self, *, user_id: str | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> Changed:
        """Brings back what was soft-deleted of a user or of a time."""
        return await self._send(_operations.restore_many({"user_id": user_id, "start": start, "end": end}))

    # Users

    async def latest(self, user_id: str, *, limit: int | None = None) -> list[MemCell]:
        """The user's newest MemCells: 10 unless `limit` says otherwise; 0 is all of them, at once."""
        return await self._send(_operations.latest(user_id, limit))

    async def activity(self, user_id: str, *, start: datetime | None = None, end: datetime | None = None) -> Activity:
        """What the user did in `[start, end)`; zero for an unknown one."""
        return await self._send(_operations.activity(user_id, start, end))

    # Transactions

    async def transaction(self, operations: Iterable[Operation]) -> TransactionResult:
        """Carries out all operations, in their order, or none. Needs a MongoDB replica set or sharded cluster.

        Raises:
            Conflict: an id is taken, or other writers kept interfering (`is_passing`; nothing was done).
            NotFound: there is no such MemCell. Both say which operation it was.
            Unsupported: MongoDB is a standalone server.
        """
        return await self._send(_operations.transact(operations))

    # Jobs

    async def order_job(
        self,
        kind: JobKind | str,
        *,
        backend: str | None = None,
        deep: bool = False,
        sweep: bool = False,
        rate: int | None = None,
    ) -> Job:
        """Begins a job. `backend` can be left out if there is only one.

        Raises:
            Conflict: a job that hasn't ended does the same.
        """
        return await self._send(_operations.order_job(kind, backend, deep=deep, sweep=sweep, rate=rate))

    async def jobs(self) -> list[Job]:
        """Those that haven't ended and the last hundred that have, the newest first."""
        return await self._send(_operations.list_jobs())

    async def job(self, id: str) -> Job:
        """One job as it is now.

        Raises:
            NotFound: there is none.
        """
        return await self._send(_operations.get_job(id))

    async def cancel_job(self, id: str) -> Job:
        """Gives a job up; what it has done stays done. It is `running` until all hosts have stopped working on it."""
        return await self._send(_operations.cancel_job(id))

    async def wait_for_job(
        self,
        id: str,
        *,
        timeout: float | None = None,
        poll: float = 1.0,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Job:
        """Waits until a job has ended, looking every `poll` seconds, and answers it: `is_fine` tells whether all is
        well.

        Raises:
            Timeout: it hasn't ended after `timeout` seconds. It goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            job = await self.job(id)
            if on_progress is not None:
                on_progress(job)
            if job.has_ended:
                return job
            left = poll if deadline is None else min(poll, deadline - time.monotonic())
            if left <= 0:
                raise Timeout(f"the {job.kind} has not ended in time; it goes on", code="no_answer", is_passing=True)
            await _pace_async.sleep(left)

    # The host

    async def overview(self, *, since: int = 0) -> Overview:
        """How all of it is doing and was doing for the last minutes, also while MongoDB is away.

        Args:
            since: only samples with a higher `number` than this: that of the newest one that is known already.
        """
        return await self._send(_operations.overview(since))

    async def backends(self) -> list[Backend]:
        """All backends with their states and figures."""
        return await self._send(_operations.backends())

    async def mismatches(self) -> list[Mismatch]:
        """Copies that were found to differ and still did when they were looked at again; the newest first."""
        return await self._send(_operations.mismatches())

    async def repair_mismatch(self, backend: str, event_id: str) -> Repaired:
        """Replaces a copy that is listed as wrong by what MongoDB has now, and compares both once more.

        Raises:
            NotFound: no such mismatch is listed: it was mended meanwhile, or never confirmed.
            Unavailable: the backend couldn't be told.
        """
        return await self._send(_operations.repair_mismatch(backend, event_id))

    async def config(self) -> dict[str, Any]:
        """The configuration in force by section and key, defaults included. `***` stands in the place of secrets."""
        return await self._send(_operations.config())

    async def reload_config(self) -> list[ConfigChange]:
        """Has the host take over what its configuration file says by now.

        Raises:
            Invalid: the file is wrong; `problems` says where. Nothing was changed.
            Conflict: it changes what only a restart brings into effect. Nothing was changed.
        """
        return await self._send(_operations.reload_config())

    async def health(self) -> str:
        """`ok`: the process runs."""
        return await self._send(_operations.health())

    async def ready(self) -> Readiness:
        """Whether MongoDB answers. That it doesn't is an answer and no error."""
        return await self._send(_operations.ready())

    async def metrics(self) -> str:
        """All figures, in the text format of Prometheus."""
        return await self._send(_operations.metrics())

    async def openapi(self) -> dict[str, Any]:
        """The host's own description of its API."""
        return await self._send(_operations.openapi())

    # Sending

    async def _send(self, call: Call[T]) -> T:
        attempts = Attempts(self._settings.retries, is_repeatable=call.is_repeatable)
        while True:
            try:
                response = await self._attempt(call)
                return call.read(response.status_code, response.headers, response.content)
            except MemCellError as error:
                if isinstance(error, Conflict) and attempts.in_doubt and call.settle is not None:
                    break
                delay = attempts.delay_after(error)
                if delay is None:
                    raise
                _note(call, attempts, error, delay)
            await _pace_async.sleep(delay)
        return await self._send(call.settle)

    async def _attempt(self, call: Call[Any]) -> httpx.Response:
        request = self._http.build_request(**self._settings.request(call))
        try:
            return await self._http.send(request)
        except httpx.HTTPError as error:
            raise _problems.from_transport(error) from error

    async def _open(self, call: Call[Any]) -> httpx.Response:
        """An answer whose body is still to come."""
        attempts = Attempts(self._settings.retries, is_repeatable=call.is_repeatable)
        while True:
            request = self._http.build_request(**self._settings.request(call))
            try:
                try:
                    response = await self._http.send(request, stream=True)
                    if response.status_code == 200:
                        return response
                    await response.aread()
                except httpx.HTTPError as error:
                    raise _problems.from_transport(error) from error
                raise _problems.from_answer(response.status_code, response.headers, response.content)
            except MemCellError as error:
                delay = attempts.delay_after(error)
                if delay is None:
                    raise
                _note(call, attempts, error, delay)
            await _pace_async.sleep(delay)

    async def _stream(self, call: Call[Page]) -> AsyncIterator[MemCell]:
        response = await self._open(call)
        reader = ListReader()
        try:
            async for part in response.aiter_bytes():
                for fields in reader.feed(part):
                    yield MemCell.from_wire(fields)
            reader.finish()
        except httpx.HTTPError as error:
            raise _problems.from_transport(error) from error
        finally:
            await response.aclose()


def _note(call: Call[Any], attempts: Attempts, error: MemCellError, delay: float) -> None:
    """Logs a retry, with the route and never with what is in it."""
    method, path = call.route.method, call.route.path
    _log.info("%s %s: %s, attempt %d follows in %.1f s", method, path, error.code, attempts.failed + 1, delay)
