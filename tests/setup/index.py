"""A package index on loopback: the real files of a lock, and beside each a newer release that nobody must take."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NEWER = "9999.0"


class Index(ThreadingHTTPServer):
    """Serves PEP 503 pages. `taken` holds the names of the files that were downloaded."""

    def __init__(self, files: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {file.name: file for file in files.iterdir()}
        self.taken: list[str] = []
        self._sums: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/simple/"

    def page(self, project: str) -> str:
        """The links of a project; empty when the index does not have it."""
        own = [name for name in self.files if _project_of(name) == project]
        links = [f'<a href="/files/{name}#sha256={self._sum(name)}">{name}</a>' for name in own]
        if own:
            newer = f"{project.replace('-', '_')}-{NEWER}-py3-none-any.whl"
            links.append(f'<a href="/files/{newer}#sha256={"0" * 64}">{newer}</a>')
        return "<br>".join(links)

    def _sum(self, name: str) -> str:
        if name not in self._sums:
            self._sums[name] = hashlib.sha256(self.files[name].read_bytes()).hexdigest()
        return self._sums[name]


class _Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        kind, _, name = self.path.strip("/").partition("/")
        if kind == "files":
            self.server.taken.append(name)
            body = self.server.files[name].read_bytes() if name in self.server.files else b""
        else:
            body = self.server.page(name.strip("/")).encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "text/html" if kind == "simple" else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def _project_of(file_name: str) -> str:
    return re.sub(r"[-_.]+", "-", file_name.split("-")[0]).lower()


@contextmanager
def serving(files: Path) -> Iterator[Index]:
    """Serves `files` until the block ends."""
    index = Index(files)
    thread = threading.Thread(target=index.serve_forever, daemon=True)
    thread.start()
    try:
        yield index
    finally:
        index.shutdown()
        thread.join()
        index.server_close()
