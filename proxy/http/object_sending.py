"""A file that another server has as an answer: piece by piece, each asked for when its reader has taken the one before."""

from __future__ import annotations

from email.utils import formatdate
from typing import Final

from proxy.http.file_sending import NOT_OF_304, judge
from proxy.http.replies import ObjectReply
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord

PIECE_BYTES: Final = 1024**2
"""What is held of it: who reads slowly holds no more, and no connection to the other server."""


async def send_object(request: Request, record: RequestRecord, reply: ObjectReply) -> None:
    """Raises ConnectionResetError when the client has gone, and what `read` does: before the head leaves where the first piece cannot be had."""
    fields = reply.headers
    fields["ETag"] = reply.etag
    fields["Last-Modified"] = formatdate(reply.changed_s, usegmt=True)
    fields["Accept-Ranges"] = "bytes"
    status, start, size = judge(request, reply.etag, None, reply.size)
    if status == 206:
        fields["Content-Range"] = f"bytes {start}-{start + size - 1}/{reply.size}"
    elif status == 416:
        fields["Content-Range"] = f"bytes */{reply.size}"
    if status not in (200, 206):
        record.status = status
        for name in NOT_OF_304:
            fields.popall(name, None)
        await request.send(status, fields.items(), b"")
        return
    fields["Content-Length"] = str(size)
    has_body = request.method != "HEAD" and size > 0
    piece = await reply.read(start, min(size, PIECE_BYTES)) if has_body else b""
    record.status, record.sent_bytes = status, size
    await request.begin_answer(status, fields.items())
    while piece:
        await request.send_piece(piece)
        start, size = start + len(piece), size - len(piece)
        piece = await reply.read(start, min(size, PIECE_BYTES)) if size else b""
    await request.end_answer()
