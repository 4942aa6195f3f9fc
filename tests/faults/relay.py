"""Stands between the gate and a ComfyUI, which goes on when it cannot be reached any more."""

from __future__ import annotations

import asyncio
from typing import Final

_PIECE_BYTES: Final = 64 * 1024
_LOCAL: Final = "127.0.0.1"


class Relay:
    """port: where ComfyUI is found. target: where it is."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, _LOCAL, self.port)

    async def cut(self) -> None:
        """Nobody comes through any more, and whoever did is cut off."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target_reader, target_writer = await asyncio.open_connection(_LOCAL, self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, target_writer}
        self._writers |= pair
        try:
            await asyncio.gather(self._pass(reader, target_writer), self._pass(target_reader, writer))
        finally:
            self._writers -= pair
            for each in pair:
                each.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What breaks off on one side does on the other: whoever asks a ComfyUI that was killed hears of it."""
        try:
            while piece := await reader.read(_PIECE_BYTES):
                writer.write(piece)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()
