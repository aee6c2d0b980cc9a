"""A network that breaks: a proxy on this machine that cuts connections after some bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class BreakingProxy:
    """Passes connections on to an address.

    Attributes:
        breaks: How many connections it will still cut.
        after: After how many bytes of what a client sends.
        cut: How many it has cut.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.breaks, self.after, self.cut = 0, 0, 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server, counted=True)
            back.join(10)

    def _pump(self, source: socket.socket, sink: socket.socket, *, counted: bool = False) -> None:
        passed = 0
        try:
            while chunk := source.recv(4096):
                passed += len(chunk)
                if counted and self._cuts(passed):
                    for end in (source, sink):
                        end.shutdown(socket.SHUT_RDWR)
                    return
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _cuts(self, passed: int) -> bool:
        with self._lock:
            if self.breaks and passed > self.after:
                self.breaks -= 1
                self.cut += 1
                return True
            return False


@contextmanager
def breaking(address: str) -> Iterator[BreakingProxy]:
    """A proxy in front of HOST:PORT."""
    host, _, port = address.rpartition(":")
    proxy = BreakingProxy(host, int(port))
    try:
        yield proxy
    finally:
        proxy.close()
