"""One host for most tests, and clients of both kinds."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridges import client as make_client
from hosts import Host
from memcell_client import AsyncMemCellClient, MemCellClient

MakeClient = Callable[..., AsyncMemCellClient]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("host"))
    with MemCellClient(host.url) as client:
        _wait_until_live(client)
        yield host
    host.stop()


@pytest.fixture
def own_host(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Starts hosts that a test has for itself."""
    hosts: list[Host] = []

    def start(sections: str = "", **options: str) -> Host:
        folder = tmp_path / f"host-{len(hosts)}"
        folder.mkdir()
        hosts.append(Host(folder, sections, **options))
        with MemCellClient(hosts[-1].url) as client:
            _wait_until_live(client)
        return hosts[-1]

    yield start
    for host in hosts:
        host.stop()


def _wait_until_live(client: MemCellClient) -> None:
    from hosts import until

    until(lambda: all(backend.state == "live" for backend in client.backends()), "the backends are live")


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two clients."""
    return str(request.param)


@pytest.fixture
async def client_of(kind: str) -> AsyncIterator[MakeClient]:
    """Makes clients of the kind under test, and closes them."""
    clients: list[AsyncMemCellClient] = []

    def make(url: str, **options: Any) -> AsyncMemCellClient:
        clients.append(make_client(kind, url, **options))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
def client(host: Host, client_of: MakeClient) -> AsyncMemCellClient:
    """A client of the shared host."""
    return client_of(host.url)


@pytest.fixture
def user() -> str:
    """A user that no other test has."""
    return f"user-{uuid.uuid4().hex}"
