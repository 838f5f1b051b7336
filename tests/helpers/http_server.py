"""A local web server of a folder, with byte ranges, that can be slow, fail and stall."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


@dataclass
class Site:
    """What the server does; it may be changed while it runs.

    Attributes:
        root: the folder.
        latency: seconds before each answer.
        failing: path -> number of requests that still fail with status 503.
        stalling: paths whose answers never come.
        ranges: whether byte ranges are answered.
        asked: number of requests by path.
    """

    root: Path
    latency: float = 0.0
    failing: dict[str, int] = field(default_factory=dict)
    stalling: set[str] = field(default_factory=set)
    ranges: bool = True
    asked: Counter[str] = field(default_factory=Counter)
    address: str = ""


@contextmanager
def serve(root: Path) -> Iterator[Site]:
    """Serves a folder on a free port of this machine."""
    site = Site(root)
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET(body=False)

        def do_GET(self, body: bool = True) -> None:
            name = unquote(self.path).strip("/")
            site.asked[name] += 1
            time.sleep(site.latency)
            if name in site.stalling:
                closing.wait(60)
                return
            if site.failing.get(name, 0) > 0:
                site.failing[name] -= 1
                self._send(503, b"", {}, body)
                return
            path = site.root / name
            if path.is_dir():
                links = "".join(f'<a href="{entry.name}{"/" * entry.is_dir()}">x</a>\n' for entry in path.iterdir())
                self._send(200, links.encode(), {"Content-Type": "text/html"}, body)
            elif path.is_file():
                self._file(path.read_bytes(), body)
            else:
                self._send(404, b"", {}, body)

        def _file(self, data: bytes, body: bool) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if wanted is None or not site.ranges:
                self._send(200, data, {"Content-Type": "video/mp4"}, body)
                return
            first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            if first > last:
                self._send(416, b"", {}, body)
                return
            part = data[first : last + 1]
            self._send(206, part, {"Content-Range": f"bytes {first}-{last}/{len(data)}"}, body)

        def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
