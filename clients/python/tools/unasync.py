"""Makes the synchronous modules from the asynchronous ones, so that there is one text of each.

python tools/unasync.py           writes them
python tools/unasync.py --check   fails if they aren't what it would write
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "memcell_client"

MODULES = {
    "_client_async.py": "_client_sync.py",
    "storage/_storage_async.py": "storage/_storage_sync.py",
}

# In this order: what is longer comes first.
WORDS = (
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncMemCellClient\b", "MemCellClient"),
    (r"\bMemCellStorage\b", "SyncMemCellStorage"),
    (r"\bhttpx\.AsyncClient\b", "httpx.Client"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\baclose\b", "close"),
    (r"\baread\b", "read"),
    (r"\baiter_bytes\b", "iter_bytes"),
    (r"\b_pace_async\b", "_pace_sync"),
    (r"\b_client_async\b", "_client_sync"),
    (r"number of tasks", "number of threads"),
)

OPENING = re.compile(r'\A"""The asynchronous (\w+)\.[^"]*"""\n')


def converted(source: str, name: str) -> str:
    """The synchronous text of an asynchronous module."""
    opening = OPENING.match(source)
    if opening is None:
        raise SystemExit(f"{name} has to begin with a comment on the asynchronous something")
    text = source[opening.end() :]
    for pattern, replacement in WORDS:
        text = re.sub(pattern, replacement, text)
    text = sorted_imports(text)
    return f'"""The synchronous {opening[1]}. Made by `tools/unasync.py` from `{name}`: change that one."""\n{text}'


def sorted_imports(text: str) -> str:
    """Names of one import line in the order that the linter wants: the changed ones may have moved."""

    def ordered(line: re.Match[str]) -> str:
        return line[1] + ", ".join(sorted(line[2].split(", "), key=str.casefold))

    return re.sub(r"^(from collections\.abc import )(.+)$", ordered, text, flags=re.MULTILINE)


def main() -> None:
    """Runs the tool."""
    check = sys.argv[1:] == ["--check"]
    for source, target in MODULES.items():
        text = converted((PACKAGE / source).read_text("utf-8"), Path(source).name)
        path = PACKAGE / target
        if not check:
            path.write_text(text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            raise SystemExit(f"{target} is not what {source} makes: run `python tools/unasync.py`")


if __name__ == "__main__":
    main()
