"""The one place where an answer leaves the gate."""

from __future__ import annotations

from typing import Final

from policy.call import ClientReply
from proxy.http.file_sending import send_file
from proxy.http.object_sending import send_object
from proxy.http.replies import FileReply, ForwardedReply, ObjectReply, Reply
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from proxy.http.response_head import has_body
from proxy.http.responses import SMALL_BYTES, add_common_headers, own_answer

PIECE_BYTES: Final = 256 * 1024


async def send(request: Request, record: RequestRecord, reply: Reply) -> None:
    """Sends the whole answer, while the request still holds its places, so that what is recorded afterwards has happened.

    Raises ConnectionResetError when the client is gone, and what a forwarded body broke with.
    """
    match reply:
        case ForwardedReply():
            await _send_forwarded(request, record, reply)
        case ClientReply():
            await _send_own(request, record, reply)
        case FileReply():
            add_common_headers(record, reply.headers)
            await send_file(request, record, reply)
        case ObjectReply():
            add_common_headers(record, reply.headers)
            await send_object(request, record, reply)


async def _send_own(request: Request, record: RequestRecord, reply: ClientReply) -> None:
    """In pieces where it is large: a buffer that shrinks is copied."""
    answer = own_answer(record, reply)
    body = answer.body
    record.status, record.sent_bytes = reply.status, len(body)
    if len(body) <= SMALL_BYTES or not has_body(request.method, reply.status):
        await request.send(reply.status, *answer)
        return
    fields = [*answer.fields, ("Content-Length", str(len(body)))]
    await request.begin_answer(reply.status, fields, answer.reason, answer.shared)
    for start in range(0, len(body), PIECE_BYTES):
        await request.send_piece(body[start : start + PIECE_BYTES])
    await request.end_answer()


async def _send_forwarded(request: Request, record: RequestRecord, reply: ForwardedReply) -> None:
    record.status, body = reply.status, reply.body
    if isinstance(body, bytes):
        record.sent_bytes = len(body)
        await request.send(reply.status, reply.headers, body, "", reply.shared)
        return
    await request.begin_answer(reply.status, reply.headers, "", reply.shared)
    await body.pour(_Answer(request, record))
    await request.end_answer()


class _Answer:
    """Takes a body for the client; see `Taker`."""

    __slots__ = ("_record", "_request")

    def __init__(self, request: Request, record: RequestRecord) -> None:
        self._request = request
        self._record = record

    def take(self, piece: bytes | memoryview) -> bool:
        self._record.sent_bytes += len(piece)
        return self._request.write_piece(piece)

    async def ready(self) -> None:
        await self._request.until_taken()
