"""Serves `/metrics` (Prometheus), `/progress` (JSON), `/healthz` and `POST /profile` for the processes of one node.

For people, `/` is a page with links to these and a button for the profile.

It only reads the folder that `ocr_finetune_trainer.telemetry.reporter` writes, so a slow or eager client costs training
nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ocr_finetune_trainer.telemetry.reporter import PROGRESS_FILE
from ocr_finetune_trainer.training.pulse import PROFILE

logger = logging.getLogger(__name__)

_PAGE = b"""<!doctype html>
<title>Training</title>
<ul><li><a href="/progress">progress</a></li><li><a href="/metrics">metrics</a></li></ul>
<form method="post" action="/profile"><button>Write a profile of the next steps</button></form>
"""
_FIXED = {"": (_PAGE, "text/html; charset=utf-8"), "/healthz": (b"ok\n", "text/plain")}


class RankFiles(Collector):
    """The metrics of all ranks of this node as one exposition: a family may be announced only once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Merges the families of all files by their names."""
        merged: dict[str, Metric] = {}
        for file in sorted(self._folder.glob("rank-*.prom")):
            for family in text_string_to_metric_families(file.read_text(encoding="utf-8")):
                known = merged.setdefault(family.name, family)
                if known is not family:
                    known.samples.extend(family.samples)
        yield from merged.values()


class TelemetryServer:
    """The HTTP endpoint of a stage on one node.

    Attributes:
        port: The port it listens on.
    """

    def __init__(self, *, folder: Path, port: int, host: str = "0.0.0.0") -> None:  # noqa: S104 - scraped from other pods
        """Binds at once.

        Args:
            folder: Where the reporters write.
            port: 0 takes any free one.
            host: Address to listen on.

        Raises:
            OSError: The port is taken.
        """
        registry = CollectorRegistry()
        registry.register(RankFiles(folder))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.split("?")[0].rstrip("/")
                if path == "/metrics":
                    self._reply(HTTPStatus.OK, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif path == "/progress":
                    self._progress()
                elif path in _FIXED:
                    self._reply(HTTPStatus.OK, *_FIXED[path])
                else:
                    self._reply(HTTPStatus.NOT_FOUND, b"try /metrics, /progress or /healthz\n", "text/plain")

            def do_POST(self) -> None:
                if self.path.rstrip("/") == "/profile":
                    (folder / PROFILE).touch()
                    self._reply(HTTPStatus.ACCEPTED, b"the next steps are profiled\n", "text/plain")
                else:
                    self._reply(HTTPStatus.NOT_FOUND, b"try POST /profile\n", "text/plain")

            def _progress(self) -> None:
                try:
                    content = (folder / PROGRESS_FILE).read_bytes()
                except OSError:
                    self._reply(HTTPStatus.SERVICE_UNAVAILABLE, b"no progress yet\n", "text/plain")
                else:
                    self._reply(HTTPStatus.OK, content, "application/json")

            def _reply(self, status: HTTPStatus, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
                logger.debug(format, *args)

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        # Looked at so often that a stage does not wait half a second for its end.
        serve = partial(self._server.serve_forever, poll_interval=0.05)
        self._thread = threading.Thread(target=serve, name="telemetry-http", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
