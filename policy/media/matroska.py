"""Matroska and WebM (RFC 8794, RFC 9559): SimpleTags with texts."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from policy.media.editing import GONE, MAX_PARTS, Editing, Judge, NotUnderstood, Read, Reading

MARK: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT: Final = 0x18538067
_TAGS, _TAG, _SIMPLE_TAG, _TAG_NAME, _TAG_STRING = 0x1254C367, 0x7373, 0x67C8, 0x45A3, 0x4487
_WITHOUT_TEXTS: Final = frozenset({0x1F43B675, 0x1C53BB6B, 0x114D9B74})
"""Clusters of the film itself, and where to seek in it."""
_CRC: Final = 0xBF
_VOID: Final = b"\xec"
_HEAD: Final = 12
"""The longest head of an element: four bytes of id, eight of size."""


class _Element(NamedTuple):
    """size: of its data; None where it is not said."""

    id: int
    head_size: int
    size: int | None


class _Part(NamedTuple):
    id: int
    head: bytes
    data: bytes


def matroska(editing: Editing) -> Reading:
    offset = 0
    while offset < editing.size:
        editing.count()
        element = _element_of((yield Read(offset, _HEAD)))
        if element.id == _SEGMENT:
            offset += element.head_size
            continue
        if element.size is None:  # a cluster of a stream: it ends where another begins
            raise NotUnderstood
        whole_size = element.head_size + element.size
        if element.id == _TAGS and editing.is_held(whole_size):
            whole = yield from editing.exactly(offset, whole_size)
            start = element.head_size
            judged = _judged_parts(whole[start:], lambda tag: _judged_tag(tag, editing.judge))
            editing.leave(judged)
            editing.replace(offset + start, whole[start:], judged)
        elif element.id not in _WITHOUT_TEXTS:
            yield from editing.look_at(offset, whole_size)
        offset += whole_size


def _element_of(data: bytes) -> _Element:
    """RFC 8794, 4 and 5: the leading zeros of the first byte say how long a number is."""
    id_size = 9 - data[0].bit_length() if data and data[0] else 9
    if id_size > 4 or len(data) <= id_size:
        raise NotUnderstood
    first = data[id_size]
    size_size = 9 - first.bit_length() if first else 9
    if size_size > 8 or len(data) < id_size + size_size:
        raise NotUnderstood
    written = int.from_bytes(data[id_size : id_size + size_size], "big")
    most = (1 << 7 * size_size) - 1
    size = written & most
    return _Element(int.from_bytes(data[:id_size], "big"), id_size + size_size, None if size == most else size)


def _parts(data: bytes) -> Iterator[_Part]:
    """SECURITY: each is many times as large in memory as in the file (tests/policy/media/test_bounds.py)."""
    start = 0
    for _ in range(MAX_PARTS):
        if start == len(data):
            return
        element = _element_of(data[start : start + _HEAD])
        first = start + element.head_size
        end = first + (len(data) if element.size is None else element.size)
        if end > len(data):
            raise NotUnderstood
        yield _Part(element.id, data[start:first], data[first:end])
        start = end
    raise NotUnderstood


def _judged_parts(data: bytes, judged: Callable[[_Part], bytes]) -> bytes:
    """The parts of a master element, each of the same length, with a new checksum where it begins with one (RFC 8794, 11.3.1)."""
    parts = list(_parts(data))
    if not parts or parts[0].id != _CRC or len(parts[0].data) != 4:
        return b"".join(map(judged, parts))
    body = b"".join(map(judged, parts[1:]))
    return parts[0].head + zlib.crc32(body).to_bytes(4, "little") + body


def _judged_tag(tag: _Part, judge: Judge) -> bytes:
    if tag.id != _TAG:
        return tag.head + tag.data
    judged = _judged_parts(tag.data, lambda part: _judged_simple_tag(part, judge))
    whole = tag.head + judged
    # A tag has one text at least (RFC 9559, 5.1.8.1.2).
    had = any(part.id == _SIMPLE_TAG for part in _parts(tag.data))
    return _void(len(whole)) if had and not any(part.id == _SIMPLE_TAG for part in _parts(judged)) else whole


def _judged_simple_tag(part: _Part, judge: Judge) -> bytes:
    whole = part.head + part.data
    if part.id != _SIMPLE_TAG:
        return whole
    inner = list(_parts(part.data))
    name = next((each.data for each in inner if each.id == _TAG_NAME), b"").decode("utf-8", "replace")
    made = [part.head]
    for each in inner:
        text = each.data.rstrip(b"\0")
        found = judge(name, text) if each.id == _TAG_STRING else None
        if found == GONE:
            return _void(len(whole))
        made.append(each.head + (each.data if found is None else found + each.data[len(text) :]))
    return b"".join(made)


def _void(size: int) -> bytes:
    """An element without meaning, of so many bytes in all: two at least (RFC 8794, 11.3.2)."""
    short = 1 if size < 128 else 8
    return (_VOID + (size - 1 - short | 1 << 7 * short).to_bytes(short, "big")).ljust(size, b"\0")
