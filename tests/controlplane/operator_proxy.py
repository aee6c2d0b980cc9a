"""A proxy between an operator and the API server: it sees what the operator changes, and does to it what clusters do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from kube_testing.control_plane import ControlPlane
from kube_testing.processes import DEADLINE
from operator_testing import Operator

_HOP = {"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "content-encoding"}


class Proxy:
    """Stands between an operator and the API server, and kills the operator at chosen requests.

    Attributes:
        refuse_every: Every so many requests get 429 instead of an answer; 0 for none.
        cut_watches_after: Seconds after which each watch is cut.
        held: Lists and watches have to wait, before they begin, whose address holds one of these.
        kept_back: Requests with one of these in what `on_call` gets are answered only when this has been emptied.
        keeps: Those whose answers were kept back.
        late: Seconds by which what watches bring is late, at most; each event comes by itself.
        twice: Whether it comes twice.
        answers: Documents that are given for a path instead of the API server's own.
        done: Requests of that operator that changed something, as `METHOD path`.
        expired: How often the API server told a watch that its resourceVersion is too old (410).
        on_change: Called with each of them after the API server has carried it out and before the operator knows.
        on_call: Called with each request, `METHOD path`, with the name of what is made, and whether the API server has
            carried it out: before, and after if it was not refused.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self.done: list[str] = []
        self.on_change: Callable[[str], object] = lambda _request: None
        self.on_call: Callable[[str, bool], object] = lambda _request, _done: None
        self.refuse_every = 0
        self.cut_watches_after = 3600.0
        self.held: tuple[str, ...] = ()
        self.kept_back: tuple[str, ...] = ()
        self.keeps: list[str] = []
        self.late, self.twice, self.expired = 0.0, False, 0
        self.answers: dict[str, Any] = {}
        self._requests = 0
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(DEADLINE), "the proxy does not start"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._session = ClientSession(
            connector=TCPConnector(ssl=False, limit=0), timeout=ClientTimeout(total=None), auto_decompress=False
        )
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._forward)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._stop.wait()
        await self._session.close()
        await runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        watches = "watch=" in request.query_string
        self._requests += not watches
        if not watches and self.refuse_every and self._requests % self.refuse_every == 0:
            busy = {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "later"}
            return web.json_response(busy, status=429, headers={"Retry-After": "1"})
        if request.path in self.answers:
            return web.json_response(self.answers[request.path])
        body = await request.read()
        call = f"{request.method} {request.rel_url}{_name(request.method, body)}"
        self.on_call(call, False)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP}
        url = f"{self._plane.url}{request.rel_url}"
        lists = request.method == "GET" and "limit=" in request.query_string
        while (watches or lists) and any(part in call for part in self.held):  # noqa: ASYNC110 - another thread lets go
            await asyncio.sleep(0.05)
        async with self._session.request(request.method, url, headers=headers, data=body or None) as answer:
            if watches:
                streamed = web.StreamResponse(status=answer.status)
                # The operator was killed, or the connection is cut.
                with contextlib.suppress(ConnectionError, TimeoutError):
                    async with asyncio.timeout(self.cut_watches_after):
                        await streamed.prepare(request)
                        async for line in answer.content:
                            await self._pass_on(streamed, line)
                return streamed
            data = await answer.read()
            if any(part in call for part in self.kept_back):
                self.keeps.append(call)
                while self.kept_back:  # noqa: ASYNC110 - another thread lets go
                    await asyncio.sleep(0.05)
            changes = request.method != "GET" and answer.status < 300 and not request.path.endswith("/events")
            if changes and "dryRun" not in request.query_string:
                self.done.append(f"{request.method} {request.path.rpartition('/namespaces/')[2]}")
                self.on_change(self.done[-1])
            if request.method == "GET" or answer.status < 300:
                self.on_call(call, True)
            return web.Response(status=answer.status, body=data, content_type=answer.content_type)

    async def _pass_on(self, streamed: web.StreamResponse, line: bytes) -> None:
        self.expired += b'"code":410' in line
        if self.late:
            await asyncio.sleep(random.uniform(0, self.late))
        for _ in range(1 + self.twice):
            await streamed.write(line)


def _name(method: str, body: bytes) -> str:
    name = json.loads(body).get("metadata", {}).get("name", "") if method == "POST" and body else ""
    return f" {name}" if name else ""


@contextmanager
def proxied(plane: ControlPlane, installed: Path, namespace: str) -> Iterator[tuple[Proxy, Operator]]:
    """An operator of one namespace behind a proxy."""
    proxy = Proxy(plane)
    config = yaml.safe_load(installed.read_text())
    config["clusters"][0]["cluster"] = {"server": proxy.url}
    kubeconfig = plane.folder / f"{namespace}.kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    operator = Operator(plane, kubeconfig=kubeconfig, name="proxied", namespaces=namespace)
    try:
        yield proxy, operator
    finally:
        plane.forget(operator.process)
        proxy.close()
