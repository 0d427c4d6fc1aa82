"""Reading a list while it arrives."""

from __future__ import annotations

import json
import random

import pytest

from memcell_client._lists import ListReader
from memcell_client.errors import UnexpectedAnswer

ITEMS = [
    {},
    {"a": 'text with } ] { [ " \\ and \\" in it', "b": [[], [{}], {"c": ["]"]}]},
    {"é": "火🍲", "\\": "\\\\", '"': '"'},
    {"n": [1, 2.5, None, True], "deep": {"er": {"still": [{"x": "]}"}]}}},
]


def read(body: bytes, cuts: list[int]) -> tuple[list[object], str | None]:
    reader, items, begin = ListReader(), [], 0
    for cut in [*cuts, len(body)]:
        items += reader.feed(body[begin:cut])
        begin = cut
    return list(items), reader.finish()


@pytest.mark.parametrize("following", [None, "abc_-="])
@pytest.mark.parametrize("indent", [None, 1])
def test_however_it_is_cut(following: str | None, indent: int | None) -> None:
    body = json.dumps({"items": ITEMS, "next": following}, ensure_ascii=False, indent=indent).encode()
    for cut in range(len(body)):
        assert read(body, [cut]) == (ITEMS, following)
    assert read(body, list(range(1, len(body)))) == (ITEMS, following)
    chance = random.Random(7)
    for _ in range(300):
        cuts = sorted(chance.sample(range(len(body)), 5))
        assert read(body, cuts) == (ITEMS, following)


def test_an_empty_list() -> None:
    assert read(b'{"items":[],"next":null}', [3]) == ([], None)


def test_what_is_no_list_or_not_all_of_it() -> None:
    body = json.dumps({"items": ITEMS, "next": None}).encode()
    for end in range(len(body)):
        with pytest.raises(UnexpectedAnswer):
            read(body[:end], [])
    for other in (b"<html>" * 20, b"[]", b'{"items":{}}' + b" " * 80, b'{"items":[{]}'):
        with pytest.raises(UnexpectedAnswer):
            read(other, [])


def test_little_is_held() -> None:
    reader = ListReader()
    reader.feed(b'{"items":[')
    for number in range(1000):
        assert len(reader.feed(b'{"n":%d,"x":"%s"},' % (number, b"x" * 1000))) == 1
        assert len(reader._buffer) < 16
