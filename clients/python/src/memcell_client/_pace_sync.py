"""Waiting, and doing several things at a time, with threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

sleep = time.sleep


def each(work: Callable[[T], R], items: Sequence[T], *, at_once: int) -> list[R]:
    """The results of `work` on all items, in their order, with `at_once` of them underway. The first error ends it."""
    if at_once == 1 or len(items) < 2:
        return [work(item) for item in items]
    pool = ThreadPoolExecutor(min(at_once, len(items)), thread_name_prefix="memcell")
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)
