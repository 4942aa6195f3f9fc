"""Ogg (RFC 3533): the comments of Opus (RFC 7845, 5.2) and Vorbis, in the second packet, which may go over many pages."""

from __future__ import annotations

import re
import zlib
from typing import Final, NamedTuple

from policy.media import vorbis_comment
from policy.media.editing import Editing, NotUnderstood, Read, Reading

MARK: Final = b"OggS"
_HEAD: Final = 27
_CRC_AT: Final = 22
_LONGEST_HEAD: Final = _HEAD + 255
_FULL: Final = 255
_FURTHER: Final = re.compile(rb"OggS\0[\x02\x03\x06\x07]", re.DOTALL)
"""The head of a page that begins another stream, with comments of its own: one behind the other (RFC 3533, 4 and 6)."""
_PIECE_BYTES: Final = 1024**2
_OPUS, _VORBIS = b"OpusTags", b"\x03vorbis"
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Page(NamedTuple):
    """lacing: how long each segment is; one of less than 255 bytes ends a packet (RFC 3533, 6)."""

    head_size: int
    lacing: bytes

    @property
    def size(self) -> int:
        return self.head_size + sum(self.lacing)


def ogg(editing: Editing) -> Reading:
    first = _page_of((yield Read(0, _LONGEST_HEAD)))
    start = offset = first.size
    pages: list[_Page] = []
    while not pages or all(segment == _FULL for segment in pages[-1].lacing):
        editing.count()
        page = _page_of((yield Read(offset, _LONGEST_HEAD, start)))
        pages.append(page)
        offset += page.size
        if offset - start > editing.max_span_bytes:
            raise NotUnderstood
    whole = yield Read(start, offset - start)
    if len(whole) != offset - start:
        raise NotUnderstood
    made = _judged(editing, whole, pages)
    editing.leave(made)
    editing.replace(start, whole, made)
    if editing.is_thorough:
        yield from _look_behind(editing, offset)


def _look_behind(editing: Editing, offset: int) -> Reading:
    """Raises NotUnderstood where another stream begins."""
    seen = b""
    while offset < editing.size:
        piece = yield from editing.exactly(offset, min(_PIECE_BYTES, editing.size - offset))
        if _FURTHER.search(seen + piece):
            raise NotUnderstood
        seen, offset = piece[-len(MARK) - 1 :], offset + len(piece)


def _page_of(data: bytes) -> _Page:
    head_size = _HEAD + (data[26] if len(data) >= _HEAD else 0)
    if len(data) < head_size or not data.startswith(MARK) or head_size == _HEAD:
        raise NotUnderstood
    return _Page(head_size, data[_HEAD:head_size])


def _judged(editing: Editing, whole: bytes, pages: list[_Page]) -> bytes:
    bodies: list[bytes] = []
    place = 0
    for page in pages:
        bodies.append(whole[place + page.head_size : place + page.size])
        place += page.size
    packet = b"".join(bodies)
    lead = _OPUS if packet.startswith(_OPUS) else _VORBIS
    if not packet.startswith(lead):
        raise NotUnderstood
    comments, end = vorbis_comment.rewrite(packet[len(lead) :], editing.judge)
    room = len(lead) + end - len(lead) - len(comments)
    rest = packet[len(lead) + end :]
    if room and lead == _VORBIS:  # which has no room for padding
        raise NotUnderstood
    # What follows Opus's comments and begins with a zero bit means nothing (RFC 7845, 5.2).
    return _on_pages(lead + comments + (bytes(room) + rest if lead == _OPUS else rest), whole, pages)


def _on_pages(packet: bytes, whole: bytes, pages: list[_Page]) -> bytes:
    made: list[bytes] = []
    place = taken = 0
    for page in pages:
        head = whole[place : place + page.head_size]
        body = packet[taken : taken + page.size - page.head_size]
        page_bytes = head[:_CRC_AT] + bytes(4) + head[_CRC_AT + 4 :] + body
        made.append(page_bytes[:_CRC_AT] + checksum(page_bytes).to_bytes(4, "little") + page_bytes[_CRC_AT + 4 :])
        place, taken = place + page.size, taken + len(body)
    return b"".join(made)


def checksum(page: bytes) -> int:
    """RFC 3533, 6: the polynomial of zlib's with the bits the other way round, and nothing before and after it."""
    found = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(found.to_bytes(4, "little").translate(_REVERSED), "big")
