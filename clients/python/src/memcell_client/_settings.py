"""What a client is told when it is made, checked."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from ._calls import Call
from ._credentials import Credentials
from ._retries import Retries


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """Where the host is, and how it is spoken to."""

    base_url: str
    credentials: Credentials
    retries: Retries
    timeout: httpx.Timeout
    limits: httpx.Limits
    verify: ssl.SSLContext | bool
    trust_env: bool

    @classmethod
    def checked(
        cls,
        base_url: str,
        *,
        token: str | None,
        token_file: str | os.PathLike[str] | None,
        verify: bool | str | os.PathLike[str] | ssl.SSLContext,
        timeout: float,
        connect_timeout: float,
        max_connections: int,
        retries: Retries | None,
        trust_env: bool,
    ) -> Settings:
        """Raises ValueError for what makes no sense, and OSError for files that can't be read."""
        if timeout <= 0 or connect_timeout <= 0 or max_connections < 1:
            raise ValueError("timeouts are above 0, and max_connections is at least 1")
        return cls(
            base_url=_base(base_url),
            credentials=Credentials(token, token_file),
            retries=Retries() if retries is None else retries,
            timeout=httpx.Timeout(timeout, connect=connect_timeout),
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
            verify=_context(verify),
            trust_env=trust_env,
        )

    def http(self) -> dict[str, Any]:
        """The arguments of httpx's clients."""
        return {
            "timeout": self.timeout,
            "limits": self.limits,
            "verify": self.verify,
            "trust_env": self.trust_env,
            "headers": {"accept": "application/json", "user-agent": "memcell-client"},
            "follow_redirects": False,
        }

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """The arguments of a request of httpx."""
        headers = {} if call.body is None else {"content-type": "application/json"}
        authorization = self.credentials.header()
        if authorization is not None:
            headers["authorization"] = authorization
        return {
            "method": call.route.method,
            "url": self.base_url + call.target,
            "content": call.body,
            "headers": headers,
        }

    def __repr__(self) -> str:
        return f"{self.base_url!r}, {self.credentials!r}"


def _base(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("base_url is http://HOST:PORT or https://HOST:PORT")
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url can't hold credentials: give token= or token_file=")
    if parts.query or parts.fragment:
        raise ValueError("base_url ends before any ? or #")
    return base_url.rstrip("/")


def _context(verify: bool | str | os.PathLike[str] | ssl.SSLContext) -> ssl.SSLContext | bool:
    if isinstance(verify, bool | ssl.SSLContext):
        return verify
    context = ssl.create_default_context(cafile=os.fspath(verify))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
