"""The bearer token, which is nowhere shown."""

from __future__ import annotations

import os
from pathlib import Path


class Credentials:
    """A token, or the file that it is in. A file is read again when it changes, so that tokens can be replaced."""

    def __init__(self, token: str | None, token_file: str | os.PathLike[str] | None) -> None:
        if token is not None and token_file is not None:
            raise ValueError("give either token or token_file")
        self._header = None if token is None else _header(token, "token")
        self._file = None if token_file is None else Path(token_file)
        self._seen: tuple[int, int, int] | None = None
        # What can't be used is better known at once.
        self.header()

    def header(self) -> str | None:
        """The value of `authorization`."""
        if self._file is not None:
            about = self._file.stat()
            seen = (about.st_mtime_ns, about.st_size, about.st_ino)
            if seen != self._seen:
                self._header, self._seen = _header(self._file.read_text("utf-8").strip(), str(self._file)), seen
        return self._header

    def __repr__(self) -> str:
        if self._file is not None:
            return f"token_file={str(self._file)!r}"
        return "no token" if self._header is None else "token=…"


def _header(token: str, source: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"{source}: a token is one line of ASCII without spaces, and not empty")
    return f"Bearer {token}"
