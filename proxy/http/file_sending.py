"""A file as an answer: validators and ranges (RFC 9110, 13 and 14), and its bytes at the pace of their reader."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from email.utils import formatdate, parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import IO, Final, TypeVar

from multidict import CIMultiDict

from policy.media.editing import Edit, apply
from policy.violation import Reason, Violation
from proxy.http.own_validators import own_etag
from proxy.http.replies import FileReply
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord

Made = TypeVar("Made")

_PIECE_BYTES: Final = 512 * 1024
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
NOT_OF_304: Final = ("Content-Type", "Content-Disposition")


async def send_file(request: Request, record: RequestRecord, reply: FileReply) -> None:
    """Raises ConnectionResetError when the client has gone, or the file has become shorter; Violation(not-found) where it is gone by now."""
    try:
        file, found, edits = await open_beside(partial(_open, reply), lambda made: made[0].close())
    except OSError:
        raise Violation(Reason.NOT_FOUND, "There is no such file or folder here.") from None
    try:
        fields = reply.headers
        etag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
        fields["ETag"] = etag = own_etag(etag) if edits else etag
        fields["Last-Modified"] = formatdate(found.st_mtime, usegmt=True)
        fields["Accept-Ranges"] = "bytes"
        status, start, size = judge(request, etag, None if edits else int(found.st_mtime), found.st_size)
        record.status = status
        if status == 206:
            fields["Content-Range"] = f"bytes {start}-{start + size - 1}/{found.st_size}"
        elif status == 416:
            fields["Content-Range"] = f"bytes */{found.st_size}"
        if status not in (200, 206):
            for name in NOT_OF_304:
                fields.popall(name, None)
            await request.send(status, fields.items(), b"")
            return
        fields["Content-Length"] = str(size)
        record.sent_bytes = size
        await request.begin_answer(status, fields.items())
        if request.method != "HEAD":
            await _send_bytes(request, file, start, size, edits)
        await request.end_answer()
    finally:
        await asyncio.to_thread(file.close)


def _open(reply: FileReply) -> tuple[IO[bytes], os.stat_result, Sequence[Edit]]:
    file = open_file(reply.file)
    try:
        found = os.fstat(file.fileno())
        # SECURITY: a preview's name may come again, as a neighbour's (tests/matrix/test_reuse.py).
        if not reply.is_same(found):
            raise FileNotFoundError
        return file, found, () if reply.edits is None else reply.edits(file.fileno(), found)
    except BaseException:
        file.close()
        raise


def open_file(path: Path) -> IO[bytes]:
    """Raises OSError."""
    # SECURITY: what a link leads to is nobody's; the folders were looked at before, and this one may have come since.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0)


async def open_beside(make: Callable[[], Made], close: Callable[[Made], object]) -> Made:
    """What `make` opens in a thread. Closed where the caller was cancelled meanwhile, as by a client that left: else nobody has it. Raises what `make` does."""
    making = asyncio.get_running_loop().run_in_executor(None, make)
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(lambda done: None if done.cancelled() or done.exception() else close(done.result()))
        raise


async def _send_bytes(request: Request, file: IO[bytes], start: int, size: int, edits: Sequence[Edit]) -> None:
    descriptor = file.fileno()
    while size > 0:
        piece = await asyncio.to_thread(os.pread, descriptor, min(size, _PIECE_BYTES), start)
        if not piece:
            raise ConnectionResetError("the file became shorter")
        piece = apply(piece, edits, start)
        start, size = start + len(piece), size - len(piece)
        await request.send_piece(piece)


def judge(request: Request, etag: str, modified_s: int | None, size: int) -> tuple[int, int, int]:
    """The status, and which bytes: where they begin and how many. The order is that of RFC 9110, 13.2.2.

    modified_s: None where the time says nothing of the bytes (proxy/http/own_validators.py).
    """
    asked = request.headers
    if_match, unmodified = asked.get("If-Match"), _time_of(asked.get("If-Unmodified-Since"))
    if if_match is not None:
        if not _lists(if_match, etag, is_weak=False):
            return 412, 0, 0
    elif unmodified is not None and modified_s is not None and modified_s > unmodified:
        return 412, 0, 0
    if_none_match, since = asked.get("If-None-Match"), _time_of(asked.get("If-Modified-Since"))
    if if_none_match is not None:
        if _lists(if_none_match, etag, is_weak=True):
            return 304, 0, 0
    elif since is not None and modified_s is not None and modified_s <= since:
        return 304, 0, 0
    if_range = asked.get("If-Range")
    is_same_time = modified_s is not None and _time_of(if_range) == modified_s
    is_another = if_range is not None and if_range != etag and not is_same_time
    if is_another or request.method != "GET":  # RFC 9110, 14.2: a range is of a GET alone
        return 200, 0, size
    return range_of(asked, size)


def range_of(asked: CIMultiDict[str], size: int) -> tuple[int, int, int]:
    """The status, and which bytes: where they begin and how many. One range; several, or what is none, are answered with the whole file (RFC 9110, 14.2)."""
    found = _RANGE.fullmatch("".join(asked.getall("Range", ())))
    first, last = found.groups() if found is not None else ("", "")
    if not first and not last:
        return 200, 0, size
    if not first:
        count = min(int(last), size)
        return (206, size - count, count) if count else (416, 0, 0)
    start, end = int(first), min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return 200, 0, size  # RFC 9110, 14.1.1: no range at all
    return (206, start, end - start + 1) if start < size else (416, 0, 0)


def _lists(field: str, etag: str, *, is_weak: bool) -> bool:
    """is_weak: the weak comparison of RFC 9110, 8.8.3.2."""
    listed = (each.strip() for each in field.split(","))
    return field.strip() == "*" or any(each == etag or (is_weak and each == f"W/{etag}") for each in listed)


def _time_of(field: str | None) -> float | None:
    """Seconds; None for what is no date, which is as if it had not been sent (RFC 9110, 13.1.3)."""
    if field is None:
        return None
    try:
        return parsedate_to_datetime(field).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
