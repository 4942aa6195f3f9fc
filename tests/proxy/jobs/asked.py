"""A ComfyUI that notes what it is asked, for tests that say themselves what it answers."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web


class AskedComfy:
    """asked: method and path of each call, with its document. status: of the answers that `answer` leaves to it; 0: the connection breaks."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[tuple[str, Any]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        body, call = await request.read(), f"{request.method} {request.path}"
        self.asked.append((call, orjson.loads(body) if body else None))
        if (answer := await self.answer(call)) is not None:
            return answer
        if not self.status:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(self.value(), status=self.status or 200)

    async def answer(self, call: str) -> web.StreamResponse | None:
        """What it says whatever `status` is; None where that decides."""
        return None

    def value(self) -> Any:
        return None

    @property
    def calls(self) -> list[str]:
        return [call for call, _ in self.asked]

    def documents(self, call: str) -> list[Any]:
        return [document for each, document in self.asked if each == call]
