"""What can go wrong, as one hierarchy. Programs act on the class (or on `code`), people read the text.

MemCellError
├── Invalid            the request is wrong: `field` or `problems` say what
├── NotFound           there is no such MemCell or job
├── Conflict           something else is in the way: a taken id, other writers, a job that does the same
├── Unauthorized       there is no token, or a wrong one
├── Forbidden          the token's role doesn't allow it
├── TooManyRequests    come back after `retry_after` seconds
├── Unavailable        the host or its MongoDB can't be reached
├── Timeout            there was no answer in time
├── Unsupported        this deployment can't do it
├── ServerFault        a fault of the host's; its log says more, under `request_id`
└── UnexpectedAnswer   an answer that isn't the host's
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileProblem:
    """Something to mend in the host's configuration file."""

    file: str
    line: int | None
    column: int | None
    key: str
    message: str


class MemCellError(Exception):
    """Everything that this package raises on account of the host or the way to it."""

    hint: str = ""
    """What to do about it; part of the text."""

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        status: int | None = None,
        field: str | None = None,
        problems: Sequence[FileProblem] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
        validation: str | None = None,
        is_passing: bool = False,
        in_doubt: bool = False,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        """What is wrong, in the host's words."""
        self.code = code
        """The stable code of the host, or `unreachable`, `broken_connection`, `no_answer`, `unexpected_answer` of this
        package.
        """
        self.status = status
        """The HTTP status; None if there was no answer."""
        self.field = field
        """The dotted path of the document field that is wrong, if it is one."""
        self.problems = tuple(problems)
        """What is wrong with the host's configuration file, if that is what is wrong."""
        self.request_id = request_id
        """The id of the request in the host's log."""
        self.retry_after = retry_after
        """After how many seconds the host wants to be asked again."""
        self.validation = validation
        """What came of comparing with the backend's copy, for a MemCell that wasn't found."""
        self.is_passing = is_passing
        """Whether the same request may succeed later."""
        self.in_doubt = in_doubt
        """Whether a write may have taken place all the same."""

    def __str__(self) -> str:
        text = f"{self.field}: {self.detail}" if self.field else self.detail
        for problem in self.problems:
            place = problem.file if problem.line is None else f"{problem.file}:{problem.line}"
            text += f"\n  {place}: {problem.key}: {problem.message}"
        about = [self.code] if self.status is None else [f"{self.status} {self.code}"]
        if self.request_id:
            about.append(f"request {self.request_id}")
        text += f" ({', '.join(about)})"
        if self.in_doubt:
            text += "; a write may or may not have taken place"
        return f"{text}; {self.hint}" if self.hint else text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class Invalid(MemCellError):
    """The request is wrong, and will be until it is changed."""


class NotFound(MemCellError):
    """There is no such MemCell (a soft-deleted one is not found either), or no such job."""


class Conflict(MemCellError):
    """Something else is in the way: the id is taken, other writers kept interfering, a job that does the same runs."""


class Unauthorized(MemCellError):
    """There is no token, or the host doesn't know it."""

    hint = "give the client a token that the host knows: token= or token_file="


class Forbidden(MemCellError):
    """The token is known, and its role doesn't allow this."""

    hint = "use a token with a role that may do this"


class TooManyRequests(MemCellError):
    """The host takes no more from this client for now; nothing was done."""

    hint = "send fewer requests at a time, or wait as long as retry_after says"


class Unavailable(MemCellError):
    """The host can't be reached, is overloaded, or has no MongoDB just now."""


class Timeout(MemCellError):
    """There was no answer in time, or the body of the request did not arrive in time (408): then nothing was done."""


class Unsupported(MemCellError):
    """The deployment can't do it, for example transactions on a standalone MongoDB."""


class ServerFault(MemCellError):
    """A fault of the host's own."""

    hint = "the host's log says more about this request"


class UnexpectedAnswer(MemCellError):
    """What answered isn't a memcell host, or one that this package doesn't fit."""

    hint = "check base_url, and that the versions of host and client fit"
