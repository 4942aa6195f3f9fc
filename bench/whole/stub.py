"""An upstream that costs next to nothing: a raw protocol on httptools that knows as much of ComfyUI's API as a gate and its clients ask for.

A process of its own: `python -m bench.whole.stub STATE`, with STATE a file of JSON: `{"object_info": file, "web": folder or "", "waiting": n,
"ended": n, "owner": client id, "is_silent": bool, "runs": bool}`. Jobs wait for ever, unless it runs them, one after the other and each in an instant;
`/bench/...` is how the measurement tells it what to do.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import mimetypes
import sys
import uuid
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote, urlsplit

import httptools
import orjson

from bench.whole.messages import CREATED_MS, GRAPH, entry, frame, frame_of, text_frame

PAUSE_S: Final = 0.002  # beyond what a loop's clock rounds away
CHUNK: Final = bytes(256 * 1024)
FEATURES: Final = (
    b'{"supports_preview_metadata": true, "max_upload_size": 104857600, "node_replacements": true, "assets": false}'
)
EMBEDDINGS: Final = b'["easynegative", "bad-hands-5", "detail-enhancer"]'
_SERVER: Final = b"Date: %s\r\nServer: Python/3.12 aiohttp/3.14.5\r\n"
"""What ComfyUI's server says besides."""
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
RUN: Final = ("start", "progress", "executed", "success")
"""What the socket of a job's client is sent while it runs."""


class ComfyUI:
    """What all connections share."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.object_info = Path(state["object_info"]).read_bytes()
        self.web = Path(state["web"]) if state["web"] else None
        self.pages: dict[str, tuple[bytes, str, str]] = {}
        self.sockets: dict[str, Connection] = {}
        self.numbers = itertools.count(1)
        self.waiting: dict[str, tuple[float, str]] = {}
        for _ in range(state["waiting"]):
            self.waiting[str(uuid.uuid4())] = (float(next(self.numbers)), state["owner"])
        self.base = set(self.waiting)
        self.is_silent = state["is_silent"]
        self.runs = state["runs"]
        self.running: dict[str, tuple[float, str]] = {}
        self.asked: Counter[str] = Counter()
        ended = [str(uuid.uuid4()) for _ in range(state["ended"])]
        self.history = {prompt_id: entry(prompt_id, state["owner"], index) for index, prompt_id in enumerate(ended)}

    def status(self, sid: str = "") -> bytes:
        """As ComfyUI tells everybody when its queue changes, and a new socket with the id that it has."""
        told = b', "sid": "%s"' % sid.encode() if sid else b""
        count = len(self.waiting) + len(self.running)
        return text_frame(
            b'{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": %d}}%s}}' % (count, told)
        )

    def changed(self) -> None:
        if not self.is_silent:
            self.notify()

    def notify(self) -> None:
        told = self.status()
        for connection in self.sockets.values():
            connection.write(told)

    def take(self, body: bytes) -> bytes:
        document = orjson.loads(body)
        prompt_id, number = document.get("prompt_id") or str(uuid.uuid4()), document.get("number", next(self.numbers))
        self.waiting[prompt_id] = (number, document.get("client_id") or "")
        self.changed()
        if self.runs and not self.running:
            self._run_next()
        return orjson.dumps({"prompt_id": prompt_id, "number": number, "node_errors": {}})

    def delete(self, body: bytes) -> None:
        """Of those that wait."""
        for prompt_id in orjson.loads(body).get("delete", ()):
            self.waiting.pop(prompt_id, None)
        self.changed()

    def _run_next(self) -> None:
        if self.waiting:
            prompt_id = min(self.waiting, key=lambda prompt_id: self.waiting[prompt_id][0])
            self.running[prompt_id] = self.waiting.pop(prompt_id)
            asyncio.get_running_loop().call_later(PAUSE_S, self._finish, prompt_id)

    def _finish(self, prompt_id: str) -> None:
        number, owner = self.running.pop(prompt_id)
        if (socket := self.sockets.get(owner)) is not None:
            for kind in RUN:
                socket.write(frame_of(kind, prompt_id))
        self.history[prompt_id] = entry(prompt_id, owner, number)
        self.changed()
        self._run_next()

    def clear(self) -> None:
        """Back to the jobs of the start."""
        self.waiting = {prompt_id: self.waiting[prompt_id] for prompt_id in self.waiting if prompt_id in self.base}
        self.changed()

    def jobs(self) -> bytes:
        rows = [
            {"id": prompt_id, "status": state, "priority": number, "create_time": CREATED_MS, "outputs_count": 0}
            for state, jobs in (("in_progress", self.running), ("pending", self.waiting))
            for prompt_id, (number, _) in jobs.items()
        ]
        return orjson.dumps({"jobs": rows, "pagination": {"offset": 0, "limit": None, "total": len(rows)}})

    def queue(self) -> bytes:
        running, pending = (
            [
                [number, prompt_id, GRAPH, {"client_id": owner, "create_time": CREATED_MS}, ["4"]]
                for prompt_id, (number, owner) in jobs.items()
            ]
            for jobs in (self.running, self.waiting)
        )
        return orjson.dumps({"queue_running": running, "queue_pending": pending})

    def page(self, path: str) -> tuple[bytes, str, str] | None:
        """Body, type and validator of a file of the web UI."""
        known = self.pages.get(path)
        if known is None and self.web is not None:
            file = (self.web / path.lstrip("/")).resolve()
            file = file / "index.html" if path == "/" else file
            if file.is_relative_to(self.web.resolve()) and file.is_file():
                body = file.read_bytes()
                kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
                known = self.pages[path] = (body, kind, f'"{hashlib.sha1(body).hexdigest()}"')
        return known


class Connection(asyncio.Protocol):
    """One client: requests one after the other, or a WebSocket."""

    def __init__(self, comfy: ComfyUI) -> None:
        self._comfy = comfy
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._socket_id: str | None = None
        self._unread = b""
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by descent

    def connection_lost(self, error: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()
        if self._socket_id is not None and self._comfy.sockets.get(self._socket_id) is self:
            del self._comfy.sockets[self._socket_id]

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._socket_id is not None:
            self._read_frames(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade()
            self._read_frames(data[upgrade.args[0] :])

    # ---- of httptools ----

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._received = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._received += len(body)
        if self._url.startswith((b"/prompt", b"/api/prompt", b"/queue")):
            self._body.append(body)

    def on_message_complete(self) -> None:
        if not self._parser.should_upgrade():
            self._answer()

    # ---- answers ----

    def _answer(self) -> None:
        split = urlsplit(self._url.decode())
        path, method = unquote(split.path), self._parser.get_method()
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        path = path.removeprefix("/api") if path != "/api/jobs" else path
        comfy = self._comfy
        comfy.asked[f"{method.decode()} {path}"] += 1
        if path == "/view":
            self._start(
                self._give(int(query["filename"].split(".")[0]))
            )  # no rule of a gate's passes on a field of ours
        elif path == "/bench/send":
            self._start(self._send_events(query))
        elif path == "/bench/asked":
            self._reply(orjson.dumps(comfy.asked))
        elif path == "/bench/clear":
            comfy.clear()
            self._reply(b"{}")
        elif path == "/bench/notify":
            comfy.notify()
            self._reply(b"{}")
        elif path == "/bench/ended":
            self._reply(b"%d" % len(comfy.history))
        elif path == "/queue" and method == b"POST":
            comfy.delete(b"".join(self._body))
            self._reply(b"")
        elif path == "/prompt" and method == b"POST":
            self._reply(comfy.take(b"".join(self._body)))
        elif path.startswith("/upload/"):
            self._reply(b'{"name": "x.png", "subfolder": "tenants/bench", "type": "input"}')
        elif method == b"POST":
            self._reply(b'{"path": "x", "size": %d}' % self._received)
        else:
            self._read(path, query)

    def _read(self, path: str, query: dict[str, str]) -> None:
        comfy = self._comfy
        if path == "/embeddings":
            self._reply(EMBEDDINGS)
        elif path == "/features":
            self._reply(FEATURES)
        elif path == "/object_info":
            self._reply(comfy.object_info)
        elif path == "/api/jobs":
            self._reply(comfy.jobs())
        elif path == "/queue":
            self._reply(comfy.queue())
        elif path == "/prompt":
            self._reply(b'{"exec_info": {"queue_remaining": %d}}' % len(comfy.waiting))
        elif path == "/history":
            begin = int(query.get("offset", 0))
            wanted = list(comfy.history.items())[begin : begin + int(query.get("max_items", 1_000_000))]
            self._reply(orjson.dumps(dict(wanted)))
        elif path.startswith("/history/"):
            prompt_id = path.rpartition("/")[2]
            found = comfy.history.get(prompt_id)
            self._reply(orjson.dumps({} if found is None else {prompt_id: found}))
        else:
            self._page(path)

    def _page(self, path: str) -> None:
        page = self._comfy.page(path)
        if page is None:
            self._reply(b"{}", status=b"404 Not Found")
            return
        body, kind, tag = page
        fields = b"ETag: %s\r\nLast-Modified: Mon, 02 Nov 2026 10:00:00 GMT\r\n" % tag.encode()
        if self._headers.get(b"if-none-match") == tag.encode():
            self.write(b"HTTP/1.1 304 Not Modified\r\n" + fields + b"\r\n")
        else:
            self._reply(body, kind.encode(), fields)

    def _reply(
        self, body: bytes, kind: bytes = b"application/json", fields: bytes = b"", status: bytes = b"200 OK"
    ) -> None:
        fields += _SERVER % formatdate(usegmt=True).encode()
        head = b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n" % (status, kind, len(body), fields)
        self.write(head + body if len(body) < 65536 else head)
        if len(body) >= 65536:
            self.write(body)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _give(self, size: int) -> None:
        self.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % size)
        for begin in range(0, size, len(CHUNK)):
            self.write(CHUNK[: size - begin])
            await self._may_write.wait()

    async def _send_events(self, query: dict[str, str]) -> None:
        """`count` frames of a kind to the socket `to`, one at a time, as they come while a job runs."""
        socket, told = self._comfy.sockets[query["to"]], frame_of(query["kind"], query["prompt"])
        for _ in range(int(query["count"])):
            socket.write(told)
            await asyncio.sleep(PAUSE_S)
        self._reply(b"{}")

    # ---- WebSockets ----

    def _upgrade(self) -> None:
        query = parse_qs(urlsplit(self._url.decode()).query)
        self._socket_id = query.get("clientId", [uuid.uuid4().hex])[0]
        accept = base64.b64encode(hashlib.sha1(self._headers[b"sec-websocket-key"] + _GUID).digest())
        self.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept
        )
        self._comfy.sockets[self._socket_id] = self
        self.write(self._comfy.status(self._socket_id))

    def _read_frames(self, data: bytes) -> None:
        """Small masked frames: pings are answered, a close is answered and ends it, the rest means nothing here."""
        self._unread += data
        while len(self._unread) >= 6:
            size = self._unread[1] & 0x7F
            offset = 6
            if size == 126:
                size, offset = int.from_bytes(self._unread[2:4], "big"), 8
            if len(self._unread) < offset + size:
                return
            kind, mask = self._unread[0] & 0x0F, self._unread[offset - 4 : offset]
            payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self._unread[offset : offset + size]))
            self._unread = self._unread[offset + size :]
            if kind == 9:
                self.write(frame(0x8A, payload))
            elif kind == 8:
                self.write(frame(0x88, payload))
                self._transport.close()
                return


async def serve(state: dict[str, Any]) -> None:
    comfy = ComfyUI(state)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(comfy), "127.0.0.1", 0, backlog=1024)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(orjson.loads(Path(sys.argv[1]).read_bytes())))
