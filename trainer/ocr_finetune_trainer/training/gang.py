"""How the nodes of a gang find each other, and learn of each other's end.

Paddle's launcher waits for ever for a node that does not come, and nobody tells it of one that is gone. So the processes
that supervise the nodes keep a line of their own to that of node 0: they meet there with a deadline, say every second how
their workers are, and are told when and why it is over. Lines of JSON over TCP; no line, no gang.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ocr_finetune_api.exit_codes import ExitCode, OCRFineTuneError, PeerError, StopRequested
from ocr_finetune_trainer.training.pulse import Outcome, State
from ocr_finetune_trainer.training.verdict import Report, judge

__all__ = ["Gang", "Identity", "Meeting"]

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.5
CAUSE_SECONDS = 3.0  # a broken connection is noticed before the report of the rank that caused it comes in
_RETRY_SECONDS = 0.2
_POLL_SECONDS = 0.05
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which gang a node belongs to, and where in it.

    Attributes:
        run: Unique id of the run.
        attempt: Number of the attempt: nodes of another one are refused.
        node: Number of this node.
        nodes: How many there are.
        address: Its address, as the others reach it.
        processes: Workers of a node.
    """

    run: str
    attempt: int
    node: int
    nodes: int
    address: str
    processes: int


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """What the nodes know once all have met.

    Attributes:
        execution: Made anew each time, so that nobody mistakes one gang for another.
        addresses: Addresses of all nodes.
        launcher_port: A free port of node 0, at which the launchers meet.
    """

    execution: str
    addresses: tuple[str, ...]
    launcher_port: int


@dataclass
class _Seat:
    """A node as node 0 sees it."""

    address: str
    connection: socket.socket | None = None
    report: Report = field(default_factory=Report)
    seen: float = field(default_factory=time.monotonic)
    lost: bool = False


class Gang:
    """A node's line to the others.

    Attributes:
        identity: Which gang, and where in it.
    """

    def __init__(
        self, identity: Identity, *, host: str, port: int, timeout: float, peer_timeout: float, stop: threading.Event
    ) -> None:
        """Connects nothing yet.

        Args:
            identity: Which gang, and where in it.
            host: Where node 0 is found by the others.
            port: Its port.
            timeout: Seconds until all have to be there.
            peer_timeout: Seconds without a sign of life after which a node or a worker counts as gone.
            stop: Ends the waiting.
        """
        self.identity = identity
        self._host = host
        self._port = port
        self._timeout = timeout
        self._peer_timeout = peer_timeout
        self._stop = stop
        self._lock = threading.Lock()
        self._seats: dict[int, _Seat] = {}
        self._meeting: Meeting | None = None
        self._verdict: Outcome | None = None
        self._refused = ""
        self._server: socket.socket | None = None
        self._held: socket.socket | None = None
        self._line: socket.socket | None = None
        self._seen = time.monotonic()
        self._sent = 0.0
        self._suspected_at = 0.0
        self._done = False

    @property
    def leads(self) -> bool:
        """Whether this is node 0."""
        return self.identity.node == 0

    @property
    def alone(self) -> bool:
        """Whether there is only one worker, so that nobody can wait for it."""
        return self.identity.nodes * self.identity.processes == 1

    def meet(self) -> Meeting:
        """Waits until all nodes are there.

        Raises:
            PeerError: Some did not come in time; the message names them.
            StopRequested: This node was asked to stop meanwhile.
        """
        if self.identity.nodes == 1:
            self._seats[0] = _Seat(address=self.identity.address)
            self._meeting = Meeting(
                execution=secrets.token_hex(4), addresses=(self.identity.address,), launcher_port=self._reserve_port()
            )
            return self._meeting
        deadline = time.monotonic() + self._timeout
        if self.leads:
            self._listen()
        return self._wait_as_host(deadline) if self.leads else self._wait_as_guest(deadline)

    def report(self, states: Sequence[State], outcome: Outcome | None) -> None:
        """Says how the workers of this node are.

        Args:
            states: What they say of themselves.
            outcome: How this node's part ended, None while it goes on.
        """
        if self.alone:
            return
        report = Report.of(states, outcome, now=time.time())
        if self.leads:
            with self._lock:
                self._seats[0].report = report
                self._seats[0].seen = time.monotonic()
            self._judge()
        if time.monotonic() - self._sent < BEAT_SECONDS and outcome is None:
            return
        self._sent = time.monotonic()
        if self.leads:
            self._tell_all({"beat": {}})
        else:
            self._send(self._line, {"beat": asdict(report)})

    def verdict(self) -> Outcome | None:
        """How it ended for the whole gang, None while it goes on."""
        if self._verdict is None and not self.leads and not self._done:
            silent = time.monotonic() - self._seen
            if self._line is None or silent > self._peer_timeout:
                how = "has closed the line" if self._line is None else f"has been silent for {silent:.0f} s"
                self._verdict = Outcome(
                    exit_code=int(ExitCode.PEER_UNAVAILABLE),
                    problems=[f"node 0 ({self._host}:{self._port}), rank 0 with it, {how}"],
                    hint="its own log says why",
                )
        return self._verdict

    def everyone_done(self) -> bool:
        """Whether all nodes have ended well; node 0 waits for this before it closes the line."""
        with self._lock:
            return all(seat.report.outcome is not None or seat.lost for seat in self._seats.values())

    def close(self, last: Outcome | None = None) -> None:
        """Ends the line.

        Args:
            last: On node 0: what the others are told, if they have not been told yet.
        """
        self._done = True
        if self.leads and last is not None and last.exit_code not in (ExitCode.OK, ExitCode.STOPPED):
            self._tell_all({"end": asdict(last)})
        for seat in list(self._seats.values()):
            _close(seat.connection)
        for line in (self._line, self._server, self._held):
            _close(line)

    def _listen(self) -> None:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", self._port))
        except OSError as error:
            raise PeerError(
                f"port {self._port} of node 0 can't be used for the rendezvous: {error.strerror}",
                hint="another run on this machine may use it",
            ) from error
        server.listen(self.identity.nodes + 8)
        self._server = server
        self._seats[0] = _Seat(address=self.identity.address)
        threading.Thread(target=self._accept, args=(server,), name="gang", daemon=True).start()

    def _reserve_port(self) -> int:
        """A free port that no other program of this node is given until the end: the launcher needs seconds to listen."""
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("", 0))
        port: int = self._held.getsockname()[1]
        return port

    def _wait_as_host(self, deadline: float) -> Meeting:
        while True:
            with self._lock:
                missing = [node for node in range(self.identity.nodes) if node not in self._seats]
                if not missing:
                    # Whoever came first has waited for the last one, and had nothing to say meanwhile.
                    for seat in self._seats.values():
                        seat.seen = time.monotonic()
                    self._meeting = Meeting(
                        execution=secrets.token_hex(4),
                        addresses=tuple(self._seats[node].address for node in range(self.identity.nodes)),
                        launcher_port=self._reserve_port(),
                    )
            if self._meeting is not None:
                self._tell_all({"start": asdict(self._meeting)})
                return self._meeting
            self._check_waiting(deadline, missing)

    def _check_waiting(self, deadline: float, missing: list[int]) -> None:
        if self._stop.wait(_POLL_SECONDS):
            raise StopRequested("stopped while waiting for the other nodes; nothing was trained")
        if time.monotonic() < deadline:
            return
        names = ", ".join(f"node {node}" for node in missing)
        error = PeerError(
            f"{names} of {self.identity.nodes} did not come to the rendezvous at {self._host}:{self._port} within "
            f"{self._timeout:.0f} s",
            hint="look at that node's pod and log; raise policy.rendezvousTimeout if it only needs longer",
        )
        self._tell_all({"end": asdict(Outcome.of(error))})
        raise error

    def _wait_as_guest(self, deadline: float) -> Meeting:
        hello = asdict(self.identity)
        reason = "nobody serves there"
        while time.monotonic() < deadline:
            try:
                line = socket.create_connection((self._host, self._port), timeout=5.0)
            except OSError as error:
                reason = error.strerror or str(error)
            else:
                line.settimeout(None)
                self._line = line
                self._send(line, {"hello": hello})
                threading.Thread(target=self._listen_to_host, args=(line,), name="gang", daemon=True).start()
                meeting = self._wait_for_start(deadline)
                if meeting is not None:
                    return meeting
                reason = "node 0 went away during the rendezvous"
            if self._stop.wait(_RETRY_SECONDS):
                raise StopRequested("stopped while waiting for node 0; nothing was trained")
        raise PeerError(
            f"node 0 can't be reached at {self._host}:{self._port} within {self._timeout:.0f} s: {reason}",
            hint="look at that node's pod and log, and at network policies between the pods",
        )

    def _wait_for_start(self, deadline: float) -> Meeting | None:
        # Node 0 names who is missing; its word may come a little after the deadline.
        over = False
        while not over:
            # What was said before the line ended must still be heard.
            over = self._line is None or time.monotonic() > deadline + 5.0
            if self._meeting is not None:
                return self._meeting
            if self._refused:
                raise PeerError(self._refused)
            if self._verdict is not None:
                raise PeerError(*self._verdict.problems, hint=self._verdict.hint)
            if self._stop.wait(_POLL_SECONDS):
                raise StopRequested("stopped while waiting for the other nodes; nothing was trained")
        return None

    def _listen_to_host(self, line: socket.socket) -> None:
        for message in _messages(line):
            self._seen = time.monotonic()
            if "start" in message:
                values = message["start"]
                self._meeting = Meeting(**{**values, "addresses": tuple(values["addresses"])})
            elif "refused" in message:
                self._refused = message["refused"]
            elif "end" in message:
                self._verdict = Outcome(**message["end"])
        self._line = None
        _close(line)

    def _accept(self, server: socket.socket) -> None:
        while not self._done:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="gang-node", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        node = None
        for message in _messages(connection):
            if node is None:
                node = self._seat(connection, message.get("hello"))
                if node is None:
                    break
                continue
            with self._lock:
                seat = self._seats[node]
                if seat.connection is not connection:
                    break
                seat.seen = time.monotonic()
                if "beat" in message:
                    seat.report = Report.parse(message["beat"])
        _close(connection)
        if node is not None:
            self._left(node, connection)

    def _seat(self, connection: socket.socket, hello: Any) -> int | None:
        refusal = self._refusal(hello)
        if refusal:
            logger.warning("refused a node: %s", refusal)
            self._send(connection, {"refused": refusal})
            return None
        with self._lock:
            before = self._seats.get(hello["node"])
            self._seats[hello["node"]] = _Seat(address=hello["address"], connection=connection)
        if before is not None:
            _close(before.connection)
        return int(hello["node"])

    def _refusal(self, hello: Any) -> str:
        mine = self.identity
        if not isinstance(hello, dict) or {"run", "attempt", "node", "nodes", "address"} - hello.keys():
            return "this is the rendezvous of a training, and that was no greeting"
        if (hello["run"], hello["attempt"]) != (mine.run, mine.attempt):
            return (
                f"attempt {hello['attempt']} of run {hello['run']} is over or not here: "
                f"this is attempt {mine.attempt} of run {mine.run}"
            )
        if hello["nodes"] != mine.nodes or not 0 < hello["node"] < mine.nodes:
            return f"node {hello['node']} of {hello['nodes']} has no place in a gang of {mine.nodes}"
        if self._meeting is not None:
            return f"the gang has met already; node {hello['node']} came back too late, all must start again"
        return ""

    def _left(self, node: int, connection: socket.socket) -> None:
        with self._lock:
            seat = self._seats.get(node)
            if seat is None or seat.connection is not connection:
                return
            if self._meeting is None:
                # It may come back before the others have noticed.
                del self._seats[node]
            else:
                seat.lost = True

    def _judge(self) -> None:
        if self._verdict is not None or self._done:
            return
        now = time.monotonic()
        with self._lock:
            reports = {node: seat.report for node, seat in self._seats.items()}
            silent = {node: now - seat.seen for node, seat in self._seats.items()}
            lost = {node for node, seat in self._seats.items() if seat.lost}
        verdict = judge(
            reports, silent=silent, lost=lost, peer_timeout=self._peer_timeout, processes=self.identity.processes
        )
        if verdict is not None and verdict.peer:
            self._suspected_at = self._suspected_at or now
            if now - self._suspected_at < CAUSE_SECONDS:
                return
        if verdict is not None:
            self._verdict = verdict
            self._tell_all({"end": asdict(verdict)})

    def _tell_all(self, message: Mapping[str, Any]) -> None:
        with self._lock:
            connections = [seat.connection for seat in self._seats.values()]
        for connection in connections:
            self._send(connection, message)

    def _send(self, connection: socket.socket | None, message: Mapping[str, Any]) -> None:
        if connection is not None:
            # Whoever reads notices that the line is broken.
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps(message).encode() + b"\n")


def error_of(outcome: Outcome) -> OCRFineTuneError:
    """A verdict as the failure to end with."""
    if outcome.exit_code == ExitCode.STOPPED:
        return StopRequested(*outcome.problems, hint=outcome.hint)
    return outcome.error()


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Waits for a condition; whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _messages(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """The messages of a line until it ends; whatever is no message ends it."""
    with contextlib.suppress(OSError, ValueError), connection.makefile("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            message = json.loads(line)
            if not isinstance(message, dict):
                return
            yield message


def _close(connection: socket.socket | None) -> None:
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
