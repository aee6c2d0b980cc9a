"""`/healthz`, `/readyz` and `/metrics` of the operator process."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from ocr_finetune_operator.metrics import Metrics

MAX_SILENCE = 30.0


class Health:
    """What the probes ask for.

    Attributes:
        ready: Whether it has seen all runs, or waits as a second replica.
        leads: Whether it works; only then there is a heart to beat.
        lacks: What it misses in this cluster, a sentence each.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat = clock()
        self.ready = False
        self.leads = False
        self.lacks: tuple[str, ...] = ()

    def beat(self) -> None:
        """A worker took a heartbeat out of the queue: queue, workers and loop are alive."""
        self._beat = self._clock()

    def lead(self) -> None:
        """Begins to expect heartbeats."""
        self.leads = True
        self.beat()

    @property
    def silence(self) -> float:
        """Seconds since the last heartbeat."""
        return self._clock() - self._beat if self.leads else 0.0


async def serve(health: Health, metrics: Metrics, *, port: int, refresh: Callable[[], None]) -> web.AppRunner:
    """Starts the HTTP server.

    Args:
        health: What the probes ask for.
        metrics: What `/metrics` shows.
        port: Port on all addresses.
        refresh: Called before each exposition.
    """

    async def healthz(_request: web.Request) -> web.Response:
        if health.silence > MAX_SILENCE:
            return web.Response(status=503, text=f"no heartbeat for {health.silence:.0f} s\n")
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        lacks = "".join(f"{lack}\n" for lack in health.lacks)
        if health.ready:
            return web.Response(text=f"ok\n{lacks}")
        return web.Response(status=503, text=f"not ready yet\n{lacks}")

    async def exposition(_request: web.Request) -> web.Response:
        refresh()
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", exposition)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
