"""Answers on their way out: what is large leaves in pieces, and is otherwise the same answer."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web

from policy.call import ClientReply
from proxy.http.request_record import RequestRecord
from proxy.http.responses import SMALL_BYTES
from proxy.http.sending import PIECE_BYTES, send
from tests.proxy.upstreams import serving


@pytest.mark.parametrize("size", [SMALL_BYTES, SMALL_BYTES + 1, 2 * PIECE_BYTES + 1])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_answer_is_the_same_in_one_piece_and_in_many(method: str, size: int) -> None:
    """The web UI shows the reason phrase of a failed upload, and nothing else of it: a long list of faults has it too."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        reply = ClientReply(400, bytes(size), "text/x", (("X-More", "a"),), phrase="This name is too long.")
        return await send(request, RequestRecord.begin(request, "::1"), reply)

    async with serving(answer) as url, aiohttp.ClientSession() as session:
        for _ in range(2):  # the connection carries a second call
            async with session.request(method, url) as response:
                assert (response.status, response.reason) == (400, "This name is too long.")
                assert (response.content_type, response.headers["X-More"]) == ("text/x", "a")
                assert int(response.headers["Content-Length"]) == size
                assert await response.read() == (bytes(size) if method == "GET" else b"")


@pytest.mark.parametrize("size", [3, SMALL_BYTES + 1])
async def test_what_is_recorded_of_an_answer_has_left(size: int) -> None:
    left = list[bool]()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = await send(request, RequestRecord.begin(request, "::1"), ClientReply(200, bytes(size), "text/x"))
        left.append(response.prepared and response._eof_sent)
        return response

    async with serving(answer) as url, aiohttp.ClientSession() as session, session.get(url) as response:
        assert await response.read() == bytes(size)
    assert left == [True]
