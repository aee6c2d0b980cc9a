"""A web server that is slow, breaks off or errs as a test asks, and what an official site offers."""

from __future__ import annotations

import http.server
import io
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Site:
    """A web server and how it misbehaves."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    breaks_after: int = 0  # bytes of each answer
    slow: float = 0.0  # seconds after each thousand bytes
    errors: int = 0  # how many answers are 503
    etag: str = '"one"'
    ranges: bool = True


def _handler(site: Site) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            site.requests.append((self.path, asked))
            content = site.files.get(self.path)
            if site.errors:
                site.errors -= 1
                self.send_error(503)
                return
            if content is None:
                self.send_error(404)
                return
            same = self.headers.get("If-Range", "") == site.etag
            start = int(asked[6:-1]) if asked and site.ranges and same else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if site.etag:
                self.send_header("ETag", site.etag)
            self.end_headers()
            body = content[start:]
            if site.breaks_after:
                body = body[: site.breaks_after]
            for at in range(0, len(body), 1000):
                self.wfile.write(body[at : at + 1000])
                if site.slow:
                    time.sleep(site.slow)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[Site]:
    """The server, while the context lasts."""
    made = Site()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def archive(files: dict[str, bytes]) -> bytes:
    """A tar of these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()
