"""What goes wrong, as callers see it."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest

import memcell_client
from conftest import MakeClient
from memcell_client import (
    Conflict,
    Forbidden,
    Invalid,
    MemCellClient,
    MemCellError,
    NotFound,
    Retries,
    ServerFault,
    Timeout,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unsupported,
)
from proxies import Stranger

ONCE = Retries(attempts=1)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "invalid_argument", Invalid),
        (401, "unauthenticated", Unauthorized),
        (401, "invalid_token", Unauthorized),
        (403, "forbidden", Forbidden),
        (404, "not_found", NotFound),
        (404, "unknown_route", UnexpectedAnswer),
        (405, "method_not_allowed", UnexpectedAnswer),
        (408, "body_timeout", Timeout),
        (409, "already_exists", Conflict),
        (413, "body_too_large", Invalid),
        (414, "uri_too_long", Invalid),
        (415, "unsupported_media_type", Invalid),
        (422, "invalid_document", Invalid),
        (429, "rate_limited", TooManyRequests),
        (431, "headers_too_large", Invalid),
        (500, "internal", ServerFault),
        (501, "unsupported", Unsupported),
        (503, "unavailable", Unavailable),
        (503, "timeout", Timeout),
        (503, "conflict", Conflict),
        (503, "misconfigured", Unavailable),
        (503, "overloaded", Unavailable),
        (503, "a_new_one", Unavailable),
        (418, "a_new_one", UnexpectedAnswer),
    ],
)
async def test_problems_become_errors(
    client_of: MakeClient, status: int, code: str, expected: type[MemCellError]
) -> None:
    body = json.dumps({"code": code, "detail": "what is wrong", "status": status}).encode()
    headers = {"content-type": "application/problem+json", "x-request-id": "r-1"}
    with Stranger(status, headers, body) as stranger:
        with pytest.raises(MemCellError) as raised:
            await client_of(stranger.url, retries=ONCE).get("x")
        error = raised.value
        assert type(error) is expected
        assert (error.code, error.status, error.detail, error.request_id) == (code, status, "what is wrong", "r-1")
        assert str(error).startswith(f"what is wrong ({status} {code}, request r-1)")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, UnexpectedAnswer),
        (302, UnexpectedAnswer),
        (401, Unauthorized),
        (403, Forbidden),
        (404, UnexpectedAnswer),
        (502, Unavailable),
        (503, Unavailable),
        (504, Timeout),
    ],
)
async def test_answers_of_something_else(client_of: MakeClient, status: int, expected: type[MemCellError]) -> None:
    with Stranger(status, {"content-type": "text/html", "location": "/login"}, b"<html>") as stranger:
        client = client_of(stranger.url, retries=ONCE)
        for operation in (
            client.get("x"),
            client.append({"timestamp": "2025-06-26"}),
            client.ready(),
            client.backends(),
        ):
            with pytest.raises(expected) as raised:
                await operation
            assert raised.value.code == "unexpected_answer"
        with pytest.raises(expected):
            _ = [cell async for cell in client.find(stream=True)]


async def test_answers_that_lack_something(client_of: MakeClient) -> None:
    for body in (b"{}", b'{"items": 1}', b'{"items": [{}]}', b"[]", b'{"items": [', b'{"count": "x"}'):
        with Stranger(200, {"content-type": "application/json"}, body) as stranger:
            client = client_of(stranger.url)
            for operation in (client.backends, client.jobs, client.count, client.mismatches):
                with pytest.raises(UnexpectedAnswer):
                    await operation()


async def test_the_token_is_sent_and_not_shown(client_of: MakeClient, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first-token\n")
    with Stranger(200, {"content-type": "application/json"}, b'{"status": "ok"}') as stranger:
        for client in (client_of(stranger.url, token="first-token"), client_of(stranger.url, token_file=file)):
            await client.health()
            assert "first-token" not in repr(client)
            assert stranger.url in repr(client)
        file.write_text("second-token")
        await client.health()
        await client_of(stranger.url).health()
        sent = [headers.get("authorization") for _, _, headers in stranger.requests]
        assert sent == ["Bearer first-token", "Bearer first-token", "Bearer second-token", None]


def test_what_makes_no_sense_is_refused_at_once(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    refusals: list[tuple[type[Exception], dict[str, Any]]] = [
        (ValueError, {"base_url": "localhost:8080"}),
        (ValueError, {"base_url": "ftp://localhost"}),
        (ValueError, {"base_url": "http://user:password@localhost"}),
        (ValueError, {"base_url": "http://localhost/?a=b"}),
        (ValueError, {"token": ""}),
        (ValueError, {"token": "a b"}),
        (ValueError, {"token": "a\nb"}),
        (ValueError, {"token": "a", "token_file": empty}),
        (ValueError, {"token_file": empty}),
        (ValueError, {"timeout": 0.0}),
        (ValueError, {"max_connections": 0}),
        (OSError, {"token_file": tmp_path / "none"}),
        (OSError, {"verify": tmp_path / "none"}),
    ]
    for kind, options in refusals:
        with pytest.raises(kind, match=r".+") as refused:
            MemCellClient(**options)
        assert "password" not in str(refused.value)
    wrong: list[dict[str, Any]] = [{"attempts": 0}, {"first_delay": -1.0}, {"first_delay": 9.0}]
    for options in wrong:
        with pytest.raises(ValueError, match="retries"):
            Retries(**options)
    with MemCellClient(verify=ssl.create_default_context()), MemCellClient(verify=False):
        pass


def test_everything_public_is_exported() -> None:
    for name in memcell_client.__all__:
        assert hasattr(memcell_client, name)
    public = {
        name
        for module in (memcell_client.answers, memcell_client.errors, memcell_client.transactions)
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    assert public <= set(memcell_client.__all__)
