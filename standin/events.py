"""The websocket side of ComfyUI: who is connected, and one publisher that awaits each socket in turn.

Kept on purpose: a newer socket takes over an id and loses it again when the older one closes; each socket is written to before the
next one, so the gate has to read what it is sent.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import ClientError, WSMsgType, web
from PIL import Image, ImageOps

from proxy.tasks import Tasks

logger = logging.getLogger(__name__)

PREVIEW: Final = 1
UNENCODED_PREVIEW: Final = 2
TEXT: Final = 3
PREVIEW_WITH_METADATA: Final = 4

FEATURES: dict[str, Any] = {
    "supports_preview_metadata": True,
    "supports_model_type_tags": True,
    "max_upload_size": 100 * 1024 * 1024,
    "extension": {"manager": {"supports_v4": True}},
    "node_replacements": True,
    "assets": False,
}


@dataclass(frozen=True)
class Preview:
    """An image on its way to a client; `longest_side` None means full size."""

    format: str
    image: Image.Image
    longest_side: int | None

    def encode(self) -> bytes:
        image = self.image
        if self.longest_side is not None:
            image = ImageOps.contain(image, (self.longest_side, self.longest_side), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        image.save(buffer, format=self.format, quality=95, compress_level=1)
        return buffer.getvalue()


@dataclass(frozen=True)
class SocketFrame:
    """One frame that a websocket client sent."""

    client_id: str
    data: str | bytes


class Events:
    def __init__(self, queue_remaining: Callable[[], int], received: list[SocketFrame]) -> None:
        self.sockets: dict[Any, web.WebSocketResponse] = {}
        self.features: dict[Any, Any] = {}
        self.received = received
        self.current_client: Any = None
        self.current_node: str | None = None
        self._queue_remaining = queue_remaining
        self._messages: asyncio.Queue[tuple[Any, Any, Any]] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks = Tasks()
        self._publisher: asyncio.Task[None] | None = None
        self._requests: dict[web.WebSocketResponse, web.BaseRequest] = {}

    @property
    def unpublished(self) -> int:
        return self._messages.qsize()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._publisher = self._tasks.start(self._publish(), "standin-publisher")

    async def stop(self) -> None:
        self.retire()
        await self._tasks.stop()

    def retire(self) -> None:
        """Sends nothing any more, and ends every websocket without a closing handshake, as a dying process does."""
        self._loop = None
        if self._publisher is not None:
            self._publisher.cancel()
        for request in list(self._requests.values()):
            if request.transport is not None:
                request.transport.abort()

    def send(self, event: Any, data: Any, client_id: Any = None) -> None:
        """Queues one message from any thread; None addresses everybody."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(self._messages.put_nowait, (event, data, client_id))
        except RuntimeError:
            logger.debug("event loop closed before %s was sent", event)

    def queue_info(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self._queue_remaining()}}

    def announce_queue(self) -> None:
        self.send("status", {"status": self.queue_info()})

    def wants_metadata(self, client_id: Any) -> bool:
        """Whether that client announced supports_preview_metadata."""
        flags = self.features.get(client_id)
        return isinstance(flags, dict) and flags.get("supports_preview_metadata") is True

    def text(self, node_id: str, text: str) -> None:
        """Event 3: to everybody, always, and without a prompt id (send_progress_text without sid)."""
        node = node_id.encode()
        self.send(TEXT, struct.pack(">I", len(node)) + node + text.encode())

    async def _publish(self) -> None:
        while True:
            event, data, client_id = await self._messages.get()
            try:
                await self._deliver(event, data, client_id)
            except Exception:
                logger.exception("the publisher failed on event %r for client %r", event, client_id)

    async def _deliver(self, event: Any, data: Any, client_id: Any) -> None:
        payload: str | bytes
        if event == UNENCODED_PREVIEW:
            kind = 2 if data.format == "PNG" else 1
            payload = struct.pack(">II", PREVIEW, kind) + data.encode()
        elif event == PREVIEW_WITH_METADATA:
            preview, metadata = data
            metadata = metadata | {"image_type": "image/png" if preview.format == "PNG" else "image/jpeg"}
            header = json.dumps(metadata).encode()
            payload = struct.pack(">II", event, len(header)) + header + preview.encode()
        elif isinstance(data, bytes):
            payload = struct.pack(">I", event) + data
        else:
            payload = json.dumps({"type": event, "data": data})
        for socket in self._targets(client_id):
            await _write(socket, payload)

    def _targets(self, client_id: Any) -> list[web.WebSocketResponse]:
        if client_id is None:
            return list(self.sockets.values())
        return [self.sockets[client_id]] if client_id in self.sockets else []

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """GET /ws."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.query.get("clientId", "") or uuid.uuid4().hex
        self._requests[socket] = request
        self.sockets[client_id] = socket
        self.features[client_id] = {}
        try:
            status = {"status": self.queue_info(), "sid": client_id}
            await self._deliver("status", status, client_id)
            if self.current_client == client_id and self.current_node is not None:
                await self._deliver("executing", {"node": self.current_node}, client_id)
            await self._read(socket, client_id)
        finally:
            # By id, not by socket: an older socket that closes takes its successor out of the table.
            self.sockets.pop(client_id, None)
            self.features.pop(client_id, None)
            self._requests.pop(socket, None)
        return socket

    async def _read(self, socket: web.WebSocketResponse, client_id: str) -> None:
        is_first = True
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self.received.append(SocketFrame(client_id, message.data))
            if message.type is not WSMsgType.TEXT:
                continue
            try:
                content = message.json()
                if is_first and content.get("type") == "feature_flags":
                    self.features[client_id] = content.get("data", {})
                    await self._deliver("feature_flags", FEATURES, client_id)
                is_first = False
            except json.JSONDecodeError:
                logger.warning("invalid JSON from client %s", client_id)
            except Exception as error:
                # ComfyUI drops whatever goes wrong in a client's message, such as a list instead of an object.
                logger.warning("error in a message of client %s: %r", client_id, error)


async def _write(socket: web.WebSocketResponse, payload: str | bytes) -> None:
    try:
        if isinstance(payload, str):
            await socket.send_str(payload)
        else:
            await socket.send_bytes(payload)
    except (ClientError, ConnectionError) as error:
        logger.debug("send error: %s", error)
