"""A proxy that cuts connections: the service's answers come through it only so many bytes at a time."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK_BYTES = 4096
_RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Forwards to `port`; the n-th connection is reset once as many bytes of answer as `budgets` say are out.

    Connections after the last budget are left alone. One that ends before its budget is spent does not count.
    """

    def __init__(self, port: int, budgets: Iterator[int]) -> None:
        self.num_cuts = 0
        self._target = port
        self._budgets = budgets
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def running(self) -> Iterator[CuttingProxy]:
        self._start(self._accept)
        try:
            yield self
        finally:
            # Closing alone would leave the thread in accept.
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for thread in self._threads:
                thread.join(10)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._start(self._forward, client, server)
                self._start(self._answer, server, client)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while chunk := client.recv(_CHUNK_BYTES):
                server.sendall(chunk)
        _reset(server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with self._lock:
            left = next(self._budgets, None)
        with suppress(OSError):
            while chunk := server.recv(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left)):
                client.sendall(chunk)
                if left is not None and (left := left - len(chunk)) == 0:
                    with self._lock:
                        self.num_cuts += 1
                    break
        _reset(client)
        _reset(server)

    def _start(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()


def _reset(connection: socket.socket) -> None:
    """End it in mid-air: no farewell, and what was not read is lost."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        # The other thread may be reading from it, and closing alone would not wake that up.
        connection.shutdown(socket.SHUT_RD)
    connection.close()
