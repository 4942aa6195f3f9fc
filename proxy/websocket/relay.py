"""Relays WebSocket frames: one task drains ComfyUI, one writes to the client, one reads the client. Decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
from aiohttp import WSCloseCode, WSMsgType

from proxy.http.request import Request
from proxy.upstream.client import MAX_EVENT_BYTES
from proxy.websocket.accepted import AcceptedSocket
from proxy.websocket.client_writer import ClientWriter
from proxy.websocket.connections import UPSTREAM_GONE
from proxy.websocket.liveness import Life
from proxy.websocket.send_queue import Close, Frame, SendQueue, is_preview

MAX_CLIENT_MESSAGE_BYTES: Final = 4 * 1024**2
"""What ComfyUI itself takes from a client (comfyui-api E.5)."""

TOO_BIG: Final = int(WSCloseCode.MESSAGE_TOO_BIG)
_CLOSE_TIMEOUT_S: Final = 2.0
FromClient = Callable[[str | bytes], Awaitable[None]]
UpstreamSocket = aiohttp.ClientWebSocketResponse


async def accept(request: Request) -> AcceptedSocket:
    """Answers the upgrade. Raises ConnectionError when the client has gone. Never compressed (permessage-deflate costs fifteen times the CPU on previews)."""
    socket = AcceptedSocket(MAX_CLIENT_MESSAGE_BYTES)
    await socket.accept(request)
    return socket


async def serve_client(
    request: Request,
    socket: AcceptedSocket,
    send_queue: SendQueue,
    from_client: FromClient,
    on_close: Callable[[Close], None] = lambda close: None,
) -> None:
    """Writes the send queue and reads the client until either ends. on_close: told when the client closes.

    It is no return value, since a client that has closed hangs up, and that cancels whoever waits here.
    """
    transport = socket.transport
    writer, life = ClientWriter(socket, transport, send_queue), Life(transport)
    try:
        writer.start()
        life.watch(writer.ping)
        await _read(socket, from_client, on_close, life)
        if send_queue.is_closed:
            # The gate closes: the reader ends with the closing handshake, which the writer finishes.
            await writer.finish()
    finally:
        life.stop()
        try:
            await writer.stop()
        finally:
            if not socket.closed and transport is not None:
                transport.abort()


async def _read(socket: AcceptedSocket, from_client: FromClient, on_close: Callable[[Close], None], life: Life) -> None:
    while True:
        message = await socket.receive()
        life.heard()
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            await from_client(message.data)
        elif message.type is WSMsgType.PONG:
            continue
        else:
            is_said = message.type is WSMsgType.CLOSE
            on_close(Close(sendable(socket.close_code), str(message.extra or "") if is_said else ""))
            return


async def drain(socket: UpstreamSocket, deliver: Callable[[Frame], None]) -> Close:
    """Reads ComfyUI until it closes. Never waits for a client: one that does not read would stall everybody's events."""
    while True:
        message = await socket.receive()
        if message.type is WSMsgType.TEXT:
            deliver(Frame(message.data))
        elif message.type is WSMsgType.BINARY:
            deliver(Frame(message.data, is_preview(message.data)))
        elif message.type is WSMsgType.CLOSE:
            return Close(sendable(message.data), str(message.extra or ""))
        elif socket.close_code == TOO_BIG:
            return Close(TOO_BIG, f"ComfyUI sent an event of more than {MAX_EVENT_BYTES // 1024**2} MiB")
        else:
            return UPSTREAM_GONE


async def relay(request: Request, client: AcceptedSocket, upstream: UpstreamSocket, send_queue: SendQueue) -> None:
    """Both directions unchanged, for an admin. Close codes and reasons are carried over."""
    clients_close = Close(1000, "")

    def closed(close: Close) -> None:
        nonlocal clients_close
        clients_close = close

    async def to_upstream(data: str | bytes) -> None:
        try:
            if isinstance(data, str):
                await upstream.send_str(data)
            else:
                await upstream.send_bytes(data)
        except (ConnectionError, aiohttp.ClientError, RuntimeError):
            return  # ComfyUI is gone: the drain sees the same and closes the client

    async def from_upstream() -> None:
        send_queue.close(await drain(upstream, send_queue.put))

    draining = asyncio.get_running_loop().create_task(from_upstream(), name="websocket drain")
    try:
        await serve_client(request, client, send_queue, to_upstream, closed)
    finally:
        draining.cancel()
        try:
            await asyncio.gather(draining, return_exceptions=True)
        finally:
            # Whatever else is cancelled: a socket that nobody drains would stall everybody's events. test_slow_readers.py
            await upstream.close(code=clients_close.code, message=clients_close.reason.encode())


def sendable(code: Any) -> int:
    """RFC 6455, 7.4.1: some codes only describe what happened and are never sent."""
    if (
        not isinstance(code, int)
        or code in (1004, 1005, 1006, 1015)
        or not (1000 <= code <= 1014 or 3000 <= code <= 4999)
    ):
        return 1000
    return code
