"""A real Redis server, whose entries a test can take away behind the host's back."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from types import TracebackType

from hosts import end_with_parent, plugin, until


class RedisServer:
    """A server with its data in memory, on a free port."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = str(listener.getsockname()[1])
        with (folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", "--port", self._port, "--bind", "127.0.0.1", "--save", "", "--dir", folder],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,
            )

    def __enter__(self) -> RedisServer:
        try:
            until(lambda: self._command("PING", check=False) == "PONG", "the Redis server answers")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()

    def backend(self, name: str) -> str:
        """The table of a backend that keeps its entries here."""
        address = f"127.0.0.1:{self._port}"
        return (
            f'[backends.{name}]\nplugin = "{plugin("remote")}"\n'
            f'grants = {{ connect = ["{address}"] }}\nsettings = {{ address = "{address}" }}\n'
        )

    def lose(self, key: str) -> None:
        """Removes the entry of a key."""
        names = self._command("--scan", "--pattern", f"*{key}*").split()
        assert names, f"Redis has nothing of {key}"
        self._command("DEL", *names)

    def _command(self, *words: str, check: bool = True) -> str:
        command = ["redis-cli", "-h", "127.0.0.1", "-p", self._port, *words]
        done = subprocess.run(command, check=check, capture_output=True, text=True, timeout=30)
        return done.stdout.strip()
