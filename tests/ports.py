"""Ports that stay free until the program that is told of them listens there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved() -> Iterator[int]:
    """A port that the kernel gives to nobody who asks for any, while the context lasts.

    A port that was only looked up may be somebody else's a moment later: a connection of another test takes any that is
    free. This one is bound; whoever asks for it by its number and reuses addresses, as servers do, may listen there.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("", 0))
        yield held.getsockname()[1]
