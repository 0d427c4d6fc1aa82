"""How the host is doing, and its configuration."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from conftest import MakeClient
from hosts import Host, backend
from memcell_client import AsyncMemCellClient, ConfigChange, Conflict, Invalid


async def test_the_host_says_how_it_is_doing(client: AsyncMemCellClient) -> None:
    assert await client.health() == "ok"
    ready = await client.ready()
    assert (ready.status, ready.mongodb, ready.is_ready) == ("ready", "ok", True)
    assert [(state.name, state.state) for state in ready.backends] == [("local", "live")]
    (local,) = await client.backends()
    assert (local.name, local.state, local.format, local.validates) == ("local", "live", "json", True)
    assert local.entries is not None
    assert local.sha256 is not None
    assert await client.mismatches() == []
    assert "# TYPE memcell_build_info gauge\n" in await client.metrics()
    assert (await client.openapi())["info"]["title"] == "memcell"


async def test_that_mongodb_is_away_is_an_answer(own_host: Callable[..., Host], client_of: MakeClient) -> None:
    host = own_host()
    client = client_of(host.url)
    host.signal_mongodb(signal.SIGSTOP)
    try:
        ready = await client.ready()
    finally:
        host.signal_mongodb(signal.SIGCONT)
    assert (ready.status, ready.is_ready) == ("not_ready", False)
    assert ready.mongodb != "ok"


async def test_the_configuration_is_reloaded(own_host: Callable[..., Host], client_of: MakeClient) -> None:
    host = own_host()
    client = client_of(host.url)
    assert await client.reload_config() == []
    host.configure(backend("local") + backend("other"))
    assert await client.reload_config() == [ConfigChange(key="backends.other", change="added")]
    host.configure(backend("local") + "[backends.other]\nplugin = 7\nshards = 0\n")
    with pytest.raises(Invalid) as wrong:
        await client.reload_config()
    assert wrong.value.code == "invalid_config"
    assert {problem.key for problem in wrong.value.problems} >= {"backends.other.plugin"}
    assert all(problem.line is not None for problem in wrong.value.problems)
    assert "memcell.toml:" in str(wrong.value)
    assert "backends.other.plugin" in str(wrong.value)
    host.configure(backend("local") + '[host]\nname = "other"\n')
    with pytest.raises(Conflict, match=r"host\.name") as restart:
        await client.reload_config()
    assert restart.value.code == "restart_required"
