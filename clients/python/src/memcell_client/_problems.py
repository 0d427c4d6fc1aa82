"""Errors from what the host answers, and from what happens on the way to it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from . import _wire
from .errors import (
    Conflict,
    FileProblem,
    Forbidden,
    Invalid,
    MemCellError,
    NotFound,
    ServerFault,
    Timeout,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unsupported,
)

_PROBLEM = "application/problem+json"

_BY_STATUS: dict[int, type[MemCellError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: UnexpectedAnswer,
    408: Timeout,
    409: Conflict,
    413: Invalid,
    414: Invalid,
    415: Invalid,
    422: Invalid,
    429: TooManyRequests,
    431: Invalid,
    500: ServerFault,
    501: Unsupported,
    502: Unavailable,
    503: Unavailable,
    504: Timeout,
}

_BY_CODE: dict[str, type[MemCellError]] = {
    "timeout": Timeout,
    "conflict": Conflict,
    "unknown_route": UnexpectedAnswer,
}

_NOTHING_DONE = frozenset({"conflict", "overloaded"})
"""Codes of 503 with which the host says that it has not begun, or has undone, what was asked."""

_PASSING = frozenset({429, 502, 503, 504})


def from_answer(status: int, headers: Mapping[str, str], body: bytes) -> MemCellError:
    """The error of an answer whose status says that it is one."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    problem = _problem(body) if media_type == _PROBLEM else None
    if problem is None:
        return _foreign(status, headers)
    code = str(problem["code"])
    error = _BY_CODE.get(code) or _BY_STATUS.get(status) or (ServerFault if status >= 500 else UnexpectedAnswer)
    retry_after = _seconds(headers.get("retry-after"))
    is_passing = status in (408, 429) or (status == 503 and (retry_after is not None or code == "timeout"))
    return error(
        str(problem.get("detail", "")),
        code=code,
        status=status,
        field=problem.get("field"),
        problems=[_file_problem(each) for each in problem.get("problems", [])],
        request_id=headers.get("x-request-id"),
        retry_after=retry_after,
        validation=headers.get("x-memcell-validation"),
        is_passing=is_passing,
        in_doubt=status >= 500 and status != 501 and code not in _NOTHING_DONE,
    )


def of_element(problem: Mapping[str, Any]) -> MemCellError:
    """The error of one element of a batch, which has no status of its own."""
    code = str(problem.get("code", ""))
    error: type[MemCellError] = Invalid
    if code in ("already_exists", "conflict"):
        error = Conflict
    elif code in ("unavailable", "misconfigured"):
        error = Unavailable
    elif code == "timeout":
        error = Timeout
    elif code == "internal":
        error = ServerFault
    in_doubt = code in ("unavailable", "timeout", "internal")
    is_passing = code in ("conflict", "unavailable", "timeout")
    detail = str(problem.get("detail", ""))
    return error(detail, code=code, field=problem.get("field"), in_doubt=in_doubt, is_passing=is_passing)


def from_transport(error: Exception) -> MemCellError:
    """The error of a request that got no answer."""
    if isinstance(error, httpx.PoolTimeout):
        detail = "all connections of this client are in use: raise max_connections, or send fewer requests at a time"
        return Unavailable(detail, code="no_connection", is_passing=True)
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        trouble = _certificate_trouble(error)
        if trouble is not None:
            detail = f"the host's certificate is not accepted ({trouble}): give its authority with verify="
            return Unavailable(detail, code="untrusted")
        detail = f"the host can't be reached ({_shown(error)}): check base_url, and that the host runs"
        return Unavailable(detail, code="unreachable", is_passing=True)
    if isinstance(error, httpx.TimeoutException):
        return Timeout("the host did not answer in time", code="no_answer", is_passing=True, in_doubt=True)
    detail = f"the connection broke before the answer was complete ({_shown(error)})"
    return Unavailable(detail, code="broken_connection", is_passing=True, in_doubt=True)


def _shown(error: Exception) -> str:
    return str(error) or type(error).__name__


def _certificate_trouble(error: BaseException) -> str | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__cause__ or cause.__context__
    return None


def _problem(body: bytes) -> dict[str, Any] | None:
    try:
        problem = _wire.load_object(body)
    except UnexpectedAnswer:
        return None
    return problem if "code" in problem else None


def _file_problem(problem: Mapping[str, Any]) -> FileProblem:
    line, column = problem.get("line"), problem.get("column")
    return FileProblem(str(problem.get("file")), line, column, str(problem.get("key")), str(problem.get("message")))


def _foreign(status: int, headers: Mapping[str, str]) -> MemCellError:
    """An error that something on the way answered: a proxy, or a server that is no memcell host."""
    error = _BY_STATUS.get(status) if status >= 429 or status in (401, 403) else None
    return (error or UnexpectedAnswer)(
        "this is not an answer of a memcell host",
        code="unexpected_answer",
        status=status,
        request_id=headers.get("x-request-id"),
        retry_after=_seconds(headers.get("retry-after")),
        is_passing=status in _PASSING,
        in_doubt=status >= 500,
    )


def _seconds(text: str | None) -> float | None:
    """`retry-after`, which the host gives in seconds; a date is as good as nothing."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
