"""A real host: the `memcell` program, a private MongoDB server and the in-memory backend, in a folder of its own."""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 60.0

USERS_OWN = {"MEMCELL_MONGODB_URI", "MEMCELL_HTTP_LISTEN", "MEMCELL_LOG"}
"""What the user has set for a host of their own is not meant for this one."""


def program() -> Path:
    """Where the program is."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    path = Path(os.environ.get("MEMCELL_PROGRAM") or ROOT / target / "debug" / "memcell")
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: run `cargo xtask python`, or `cargo build -p memcell-host` first")
    return path


def plugin(name: str) -> Path:
    """Where a component is."""
    path = ROOT / (os.environ.get("MEMCELL_COMPONENTS") or "target") / "plugins" / f"{name}.wasm"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: run `cargo xtask plugins` first")
    return path


def backend(name: str) -> str:
    """The table of an in-memory backend."""
    return f'[backends.{name}]\nplugin = "{plugin("in_memory")}"\n'


class Host:
    """A host that runs until it is stopped."""

    def __init__(self, folder: Path, sections: str = "", *, mongodb: str = "", http: str = "") -> None:
        self.folder = folder
        self.config = folder / "memcell.toml"
        self.log = folder / "host.log"
        self._head = (
            f'[mongodb]\nuri = "embedded"\ndata_directory = "{folder / "mongodb"}"\n{mongodb}'
            f'[http]\nlisten = "127.0.0.1:0"\n{http}'
        )
        self.configure(sections or backend("local"))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [program(), "serve", "--json", "--config", self.config],
                env={name: value for name, value in os.environ.items() if name not in USERS_OWN},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                preexec_fn=end_with_parent,
            )
        try:
            self.url = self._announced()
        except BaseException:
            self.stop()
            raise

    def configure(self, sections: str) -> None:
        """Writes the configuration file."""
        self.config.write_text(self._head + sections, "utf-8")

    def stop(self) -> None:
        """Ends it in order, or else at once."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def signal_mongodb(self, number: signal.Signals) -> None:
        """Sends a signal to the MongoDB server, which is the host's child."""
        pid = self._process.pid
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = " ".join((task / "children").read_text() for task in tasks)
        assert children.split(), "the host has no MongoDB server"
        for child in children.split():
            os.kill(int(child), number)

    def _announced(self) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            line = stdout.readline() if selector.select(PATIENCE) else b""
        if not line:
            raise RuntimeError(f"the host did not start:\n{self.log.read_text('utf-8', 'replace')[-4000:]}")
        url = json.loads(line)["url"]
        assert isinstance(url, str)
        return url


def end_with_parent() -> None:
    """If the tests are killed, the host ends too, and its MongoDB server with it."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain until {what}")
        time.sleep(0.02)
