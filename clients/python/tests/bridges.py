"""The synchronous classes with the faces of the asynchronous ones, so that one test is a test of both."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from memcell_client import AsyncMemCellClient, MemCell, MemCellClient
from memcell_client.storage import MemCellStorage, SyncMemCellStorage

_END = object()


class _Bridge:
    def __init__(self, wrapped: object) -> None:
        self._wrapped = wrapped

    def __repr__(self) -> str:
        return repr(self._wrapped)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._wrapped, "close" if name == "aclose" else name)
        if inspect.isgeneratorfunction(method):
            return lambda *args, **kwargs: _steps(method(*args, **kwargs))

        async def in_thread(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return in_thread


async def _steps(iterator: Iterator[MemCell]) -> AsyncIterator[MemCell]:
    try:
        while (cell := await asyncio.to_thread(next, iterator, _END)) is not _END:
            yield cast(MemCell, cell)
    finally:
        await asyncio.to_thread(iterator.close)  # type: ignore[attr-defined]


def client(kind: str, url: str, **options: Any) -> AsyncMemCellClient:
    """A client of either kind."""
    if kind == "async":
        return AsyncMemCellClient(url, **options)
    return cast(AsyncMemCellClient, _Bridge(MemCellClient(url, **options)))


def storage(kind: str, url: str, **options: Any) -> MemCellStorage:
    """A storage of either kind."""
    if kind == "async":
        return MemCellStorage(AsyncMemCellClient(url), **options)
    return cast(MemCellStorage, _Bridge(SyncMemCellStorage(MemCellClient(url), **options)))
