"""ID3v2 before an MP3 (id3.org, id3v2.3.0 and id3v2.4.0): texts of one's own, which ffmpeg writes for every key that has no frame."""

from __future__ import annotations

from typing import Final

from policy.media.editing import GONE, Editing, NotUnderstood, Read, Reading, big

MARK: Final = b"ID3"
_HEAD: Final = 10
_OWN_TEXT: Final = b"TXXX"
_ONE_BYTE: Final = frozenset({0, 3})
"""Encodings in which a zero byte ends a text: Latin-1 and UTF-8."""
_TAIL: Final = 256
_ID3V1: Final = 128
_LAST_TAGS: Final = ((b"APETAGEX", 32), (b"LYRICSEND", 9), (b"LYRICS200", 9), (b"3DI", 10))
"""How tags at the end of a file end, and how many bytes before it that begins."""


def id3(editing: Editing) -> Reading:
    head = yield from editing.exactly(0, _HEAD)
    version, flags = head[3], head[5]
    if version not in (3, 4) or flags:  # bytes between the bytes, or a further head
        raise NotUnderstood
    size = _syncsafe(head[6:10])
    body = yield from editing.exactly(_HEAD, size)
    made = _judged(editing, body, version)
    editing.leave(made)
    editing.replace(_HEAD, body, made)
    if editing.is_thorough:
        yield from _look_around(editing, _HEAD + size)


def _look_around(editing: Editing, start: int) -> Reading:
    """Behind the tag is the sound: no other file, and no tag of another kind at its end (APEv2, also before ID3v1 and Lyrics3)."""
    sound = yield Read(start, 2)
    last = yield Read(max(start, editing.size - _TAIL), _TAIL)
    end = len(last) - (_ID3V1 if last[-_ID3V1:].startswith(b"TAG") else 0)
    is_tagged = any(last.startswith(mark, end - size) for mark, size in _LAST_TAGS if size <= end)
    if is_tagged or (sound and (sound[0] != 0xFF or sound[-1] < 0xE0)):
        raise NotUnderstood


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
    if frame[9]:  # packed, or otherwise not as it stands there
        editing.pass_over()
    if frame[:4] != _OWN_TEXT or len(frame) <= lead or frame[_HEAD] not in _ONE_BYTE or frame[9]:
        return frame
    key, mark, rest = frame[lead:].partition(b"\0")
    text = rest.rstrip(b"\0")
    found = editing.judge(key.decode("utf-8", "replace"), text) if mark else None
    if found is None:
        return frame
    return GONE if found == GONE else frame[: lead + len(key) + 1] + found + rest[len(text) :]
