"""ID3v2 before an MP3 (id3.org, id3v2.3.0 and id3v2.4.0): texts of one's own, which ffmpeg writes for every key that has no frame."""

from __future__ import annotations

from typing import Final

from policy.media.editing import GONE, Editing, NotUnderstood, Reading, big

MARK: Final = b"ID3"
_HEAD: Final = 10
_OWN_TEXT: Final = b"TXXX"
_ONE_BYTE: Final = frozenset({0, 3})
"""Encodings in which a zero byte ends a text: Latin-1 and UTF-8."""


def id3(editing: Editing) -> Reading:
    head = yield from editing.exactly(0, _HEAD)
    version, flags = head[3], head[5]
    if version not in (3, 4) or flags:  # bytes between the bytes, or a further head
        raise NotUnderstood
    size = _syncsafe(head[6:10])
    body = yield from editing.exactly(_HEAD, size)
    editing.replace(_HEAD, body, _judged(editing, body, version))


def _syncsafe(data: bytes) -> int:
    """id3v2.4.0, 6.2: seven bits a byte."""
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(reversed(data)))


def _judged(editing: Editing, body: bytes, version: int) -> bytes:
    made: list[bytes] = []
    place = 0
    while place + _HEAD <= len(body) and body[place]:
        editing.count()
        written = body[place + 4 : place + 8]
        end = place + _HEAD + (_syncsafe(written) if version == 4 else big(written, 0))
        if end > len(body):
            raise NotUnderstood
        made.append(_judged_frame(editing, body[place:end]))
        place = end
    frames = b"".join(made)
    return (frames + body[place:]).ljust(len(body), b"\0")


def _judged_frame(editing: Editing, frame: bytes) -> bytes:
    lead = _HEAD + 1
    if frame[:4] != _OWN_TEXT or len(frame) <= lead or frame[_HEAD] not in _ONE_BYTE or frame[9]:
        return frame
    key, mark, rest = frame[lead:].partition(b"\0")
    text = rest.rstrip(b"\0")
    found = editing.judge(key.decode("utf-8", "replace"), text) if mark else None
    if found is None:
        return frame
    return GONE if found == GONE else frame[: lead + len(key) + 1] + found + rest[len(text) :]
