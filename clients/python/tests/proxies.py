"""Servers between client and host: one loses what it should carry, one answers as others on the way do."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

METHODS = (b"GET ", b"POST ", b"PATCH ", b"DELETE ")


class Proxy:
    """Carries bytes to the host and back, except for what it is told to lose."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = (parts.hostname or "", parts.port or 0)
        self.lose_requests = 0
        """So many of the next requests never reach the host."""
        self.lose_answers = 0
        """So many of the next requests reach the host, and their answers nobody."""
        self.hold_answers = 0
        """As lose_answers, but the connection stays open."""
        self.cut_after: int | None = None
        """After how many bytes of answers a connection is cut."""
        self.requests = 0
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops listening: whoever connects is refused."""
        # A thread that accepts keeps the port open until it is woken.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._sockets:
            _end(connection)

    def reopen(self) -> None:
        """Listens again on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._serve()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            host = socket.create_connection(self._host)
            self._sockets += [client, host]
            lost = threading.Event()
            for work in (self._requests, self._answers):
                threading.Thread(target=work, args=(client, host, lost), daemon=True).start()

    def _requests(self, client: socket.socket, host: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while part := client.recv(65536):
                if part.startswith(METHODS):
                    self.requests += 1
                    if self.lose_requests > 0:
                        self.lose_requests -= 1
                        break
                    if self.lose_answers > 0 or self.hold_answers > 0:
                        lost.set()
                host.sendall(part)
        _end(client)
        _end(host)

    def _answers(self, client: socket.socket, host: socket.socket, lost: threading.Event) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while part := host.recv(65536):
                if lost.is_set():
                    lost.clear()
                    if self.hold_answers > 0:
                        self.hold_answers -= 1
                        continue
                    self.lose_answers -= 1
                    break
                carried += len(part)
                if self.cut_after is not None and carried > self.cut_after:
                    break
                client.sendall(part)
        _end(client)
        _end(host)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


class Stranger:
    """A web server that is no memcell host, such as a gateway: answers everything with one status."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        stranger = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", "0")))
                stranger.requests.append((self.command, self.path, dict(self.headers)))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, format: str, *args: object) -> None:
                """Nobody wants to know."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Stranger:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
