"""When a request is sent again. Nothing here waits: the clients do."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .errors import MemCellError


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is sent that fails for a passing reason, and how long is waited in between.

    Whatever did not reach the host is sent again, and so is what the host says it has not done. Where a write may have
    taken place, only what does no harm when it is done twice is sent again: reads, and appends with a given `event_id`.
    """

    attempts: int = 4
    """All of them, the first included; 1: never again."""
    first_delay: float = 0.1
    """Seconds before the second attempt; doubled each time, and varied by half so that clients don't come back
    together.
    """
    longest_delay: float = 5.0
    """The most seconds between attempts. A host that wants more is not asked again."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_delay < 0 or self.longest_delay < self.first_delay:
            raise ValueError("retries need attempts >= 1 and 0 <= first_delay <= longest_delay")


class Attempts:
    """The attempts of one request."""

    def __init__(self, retries: Retries, *, is_repeatable: bool) -> None:
        self._retries = retries
        self._is_repeatable = is_repeatable
        self.failed = 0
        """How many have failed."""
        self.in_doubt = False
        """Whether one of them may have done its work."""

    def delay_after(self, error: MemCellError) -> float | None:
        """How many seconds to wait before the next attempt; None if there is none."""
        self.failed += 1
        self.in_doubt |= error.in_doubt
        is_safe = self._is_repeatable or not error.in_doubt
        if not error.is_passing or not is_safe or self.failed >= self._retries.attempts:
            return None
        wished = error.retry_after or 0.0
        if wished > self._retries.longest_delay:
            return None
        grown = min(self._retries.first_delay * float(2 ** (self.failed - 1)), self._retries.longest_delay)
        return max(wished, grown * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads clients
