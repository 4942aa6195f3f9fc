"""The short form of `make bench` for streams of events: what is done once, however many follow a job. Never in time."""

from __future__ import annotations

import asyncio

import pytest

from policy.v2 import events
from proxy.v2.event_stream import EventStream
from tests.harness import Running
from tests.proxy.v2.following import cancel, events_of, slow, submit

STREAMS = 60


async def follow(gate: Running, job: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has been told where its job is."""
    host, port = gate.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {events_of(job)} HTTP/1.1\r\nHost: x\r\nX-API-Key: {gate.keys['alice']}\r\n\r\n".encode())
    await reader.readuntil(b"event: status\n")
    return reader, writer


async def test_a_stream_has_no_task_and_an_event_is_written_once(
    gate: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, waiting = await submit(gate, slow()), await submit(gate, slow())
    others = [await follow(gate, running) for _ in range(2)]
    tasks = len(asyncio.all_tasks())
    clients = [await follow(gate, waiting) for _ in range(STREAMS)]
    assert len(asyncio.all_tasks()) <= tasks
    written: list[str] = []
    write = events._event

    def counted(name: str, data: object) -> bytes:
        written.append(name)
        return write(name, data)

    sent: list[bytes] = []
    send = EventStream._write

    def kept(stream: EventStream, piece: object) -> None:
        sent.append(piece.framed(is_chunked=True))  # type: ignore[attr-defined]
        send(stream, piece)  # type: ignore[arg-type]

    monkeypatch.setattr(events, "_event", counted)
    monkeypatch.setattr(EventStream, "_write", kept)
    await cancel(gate, waiting)
    for reader, writer in clients:
        assert b'{"status":"canceled"}' in await reader.read()
        writer.close()
    ends = [piece for piece in sent if b"canceled" in piece]
    assert len(ends) == STREAMS
    assert len({id(piece) for piece in ends}) == 1, "the same bytes go to all"
    assert written.count("status") < STREAMS // 4
    await cancel(gate, running)
    for reader, writer in others:
        await reader.read()
        writer.close()
