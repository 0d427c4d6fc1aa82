"""A list of MemCells read while it arrives: no more of it is held than one MemCell and a part of the network's."""

from __future__ import annotations

import re
from typing import Any

from . import _wire

_BEGIN = re.compile(rb'\s*\{\s*"items"\s*:\s*\[')
_OUTSIDE = re.compile(rb'["{}\]]')
_INSIDE = re.compile(rb'["\\]')


class ListReader:
    """Takes the parts of a body `{"items":[…],"next":…}` and gives the items back as they are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0
        """Up to where the buffer was looked at."""
        self._start = -1
        """Where the item that has begun begins; -1 between items."""
        self._depth = 0
        self._in_text = False
        self._has_begun = False
        self._has_ended = False

    def feed(self, part: bytes) -> list[dict[str, Any]]:
        """The items that are complete with this part."""
        self._buffer += part
        items: list[dict[str, Any]] = []
        if self._begin() and not self._has_ended:
            self._scan(items)
            self._forget()
        return items

    def finish(self) -> str | None:
        """At the end of the body: its `next`.

        Raises:
            UnexpectedAnswer: if the body wasn't complete.
        """
        if not self._has_ended:
            raise _wire.unexpected("the list ended before its end")
        # What is left is `],"next":…}`.
        end = _wire.load_object(b'{"items":[' + bytes(self._buffer))
        following = end.get("next")
        return following if isinstance(following, str) else None

    def _begin(self) -> bool:
        if self._has_begun:
            return True
        begin = _BEGIN.match(self._buffer)
        if begin is None:
            if len(self._buffer) > 64:
                raise _wire.unexpected("the answer is not a list")
            return False
        del self._buffer[: begin.end()]
        self._has_begun = True
        return True

    def _scan(self, items: list[dict[str, Any]]) -> None:
        buffer, position = self._buffer, self._position
        while True:
            found = (_INSIDE if self._in_text else _OUTSIDE).search(buffer, position)
            if found is None:
                self._position = len(buffer)
                return
            sign, position = found.group(), found.end()
            if sign == b"\\":
                if position == len(buffer):
                    # What it escapes is in the next part: it is looked at again then.
                    self._position = position - 1
                    return
                position += 1
            elif sign == b'"':
                self._in_text = not self._in_text
            elif sign == b"{":
                if self._depth == 0:
                    self._start = found.start()
                self._depth += 1
            elif sign == b"}":
                self._depth -= 1
                if self._depth == 0:
                    items.append(_wire.load_object(bytes(buffer[self._start : position])))
                    self._start = -1
            elif self._depth == 0:
                # The end of the list.
                del buffer[: found.start()]
                self._has_ended = True
                return

    def _forget(self) -> None:
        """Drops what was given back."""
        if not self._has_ended:
            done = self._position if self._start < 0 else self._start
            del self._buffer[:done]
            self._position -= done
            if self._start >= 0:
                self._start = 0
