"""The one place where an answer leaves the gate."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from policy.call import ClientReply
from proxy.http.replies import FileReply, ForwardedReply, Reply, ServedWebSocket
from proxy.http.request_record import RequestRecord
from proxy.http.responses import SMALL_BYTES, add_common_headers, to_response
from proxy.http.server import is_reserved

PIECE_BYTES: Final = 256 * 1024


async def send(request: web.BaseRequest, record: RequestRecord, reply: Reply) -> web.StreamResponse:
    """Sends the whole answer, while the request still holds its places, so that what is recorded afterwards has happened.

    Raises ConnectionResetError when the client is gone, and what a forwarded body broke with.
    """
    match reply:
        case ClientReply():
            response = to_response(record, reply)
            is_small = record.sent_bytes <= SMALL_BYTES
            return await (_send_whole if is_small else _send_pieces)(request, record, response)
        case ForwardedReply(status=status, headers=headers, body=bytes() as body):
            record.status, record.sent_bytes = status, len(body)
            return await _send_whole(request, record, web.Response(status=status, headers=headers, body=body))
        case ForwardedReply():
            return await _send_stream(request, record, reply)
        case FileReply(response=file):
            add_common_headers(record, file.headers)
            record.has_started = True
            await file.prepare(request)
            record.status, record.sent_bytes = file.status, file.content_length or 0
            return file
        case ServedWebSocket(response=served):
            return served


async def _send_whole(request: web.BaseRequest, record: RequestRecord, response: web.Response) -> web.StreamResponse:
    """Head and body leave in one write: half the cost of a small answer is its system calls."""
    if is_reserved(request):
        response.force_close()
    record.has_started = True
    await response.prepare(request)
    await response.write_eof()
    return response


async def _send_pieces(request: web.BaseRequest, record: RequestRecord, response: web.Response) -> web.StreamResponse:
    """In pieces where it is large: a buffer that shrinks is copied."""
    body = response.body
    assert isinstance(body, bytes), "an answer of the gate's own"
    record.has_started = True
    streamed = web.StreamResponse(status=response.status, reason=response.reason, headers=response.headers)
    streamed.content_length = len(body)
    await streamed.prepare(request)
    if request.method != "HEAD":
        for start in range(0, len(body), PIECE_BYTES):
            await streamed.write(body[start : start + PIECE_BYTES])
    await streamed.write_eof()
    return streamed


async def _send_stream(request: web.BaseRequest, record: RequestRecord, reply: ForwardedReply) -> web.StreamResponse:
    assert not isinstance(reply.body, bytes), "sent whole"
    record.status, record.has_started = reply.status, True
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    await response.prepare(request)
    async for chunk in reply.body:
        record.sent_bytes += len(chunk)
        await response.write(chunk)
    await response.write_eof()
    return response
