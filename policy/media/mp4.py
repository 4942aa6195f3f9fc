"""MP4 and QuickTime (ISO/IEC 14496-12; QuickTime File Format, Metadata and User Data): the box `meta`, as ffmpeg writes it with and without
use_metadata_tags, and the texts in `udta` as it writes them without in a `mov`.

Pictures come in the same boxes (HEIF, ISO/IEC 23008-12: HEIC, AVIF), with Exif and XMP among their items (`iloc`, `iinf`), which are not read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from policy.media.editing import GONE, MAX_PARTS, Editing, Judge, NotUnderstood, Read, Reading, big
from policy.media.workflow_texts import XMP

MARK: Final = b"ftyp"
"""Behind the length of the first box."""
_HEAD: Final = 8
_LONG_HEAD: Final = 16
_AROUND_META: Final = frozenset({b"moov", b"udta"})
_TEXT: Final = b"\xa9"
_COMMENT: Final = b"\xa9cmt"
_PICTURE_BRANDS: Final = frozenset(
    (
        b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1", b"miaf",
        b"jpeg", b"jpgs", b"j2ki", b"avci", b"avcs", b"vvic", b"vvis",
    )
)  # fmt: skip
_ITEMS: Final = frozenset((b"iloc", b"iinf"))
_FILM: Final = b"mdat"
_PACKED: Final = b"cmov"
"""A compressed `moov` (QuickTime File Format, Movie Atoms)."""
_XMP: Final = b"XMP_"
"""In QuickTime's user data; elsewhere it is an `uuid` of this one (XMP Specification, part 3, 1.2.7)."""
_XMP_UUID: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_TEXT_LEAD: Final = 4
"""In QuickTime's user data, before a text: its length and its language."""
_FREE: Final = b"free"
_DATA_LEAD: Final = 8
"""In a box `data`, before the value: its type and its locale."""
_UTF8: Final = 1


class _Box(NamedTuple):
    kind: bytes
    head: bytes
    data: bytes

    def with_data(self, data: bytes) -> bytes:
        return (len(self.head) + len(data)).to_bytes(4, "big") + self.kind + data


def mp4(editing: Editing) -> Reading:
    offset = 0
    while offset + _HEAD <= editing.size:
        editing.count()
        head = yield Read(offset, _LONG_HEAD)
        kind = head[4:8]
        size = _size_of(head, editing.size - offset)
        if kind == _PACKED or (big(head, 0) == 0 and kind != _FILM):
            editing.pass_over()
        if kind in _AROUND_META:
            offset += _LONG_HEAD if big(head, 0) == 1 else _HEAD
            continue
        if kind == b"meta" or kind[:1] == _TEXT or (kind in (b"uuid", _XMP) and editing.is_thorough):
            if editing.is_held(size):
                whole = yield from editing.exactly(offset, size)
                judged = _judged_meta(whole, editing) if kind == b"meta" else _judged_text(whole, editing)
                editing.leave(judged)
                editing.replace(offset, whole, judged)
        elif kind == b"ftyp":
            yield from _check_brands(editing, offset, size)
        elif kind != _FILM:
            yield from editing.look_at(offset, size)
        offset += size


def _check_brands(editing: Editing, offset: int, size: int) -> Reading:
    """Those of a film: first the one that it is made for, its version, and those that it can be read as."""
    if editing.is_thorough:
        found = yield from editing.exactly(offset, size)
        if not _PICTURE_BRANDS.isdisjoint(found[place : place + 4] for place in range(_HEAD, size, 4)):
            raise NotUnderstood


def _judged_text(box: bytes, editing: Editing) -> bytes:
    """A box of user data, or an `uuid`."""
    kind = box[4:_HEAD]
    if kind == b"uuid":
        lead, key = _LONG_HEAD + _HEAD, XMP if box[_HEAD : _LONG_HEAD + _HEAD] == _XMP_UUID else ""
    elif kind == _XMP:
        lead, key = _HEAD, XMP
    else:
        lead, key = _HEAD + _TEXT_LEAD, "comment" if kind == _COMMENT else kind[1:].decode("latin-1")
    end = lead + big(box, _HEAD, 2) if kind[:1] == _TEXT else len(box)
    if big(box, 0) < lead or end > len(box):
        editing.pass_over()
        return box
    found = editing.judge(key, box[lead:end])
    if found is None:
        return box
    # What is gone leaves a box without meaning.
    return (box[:4] + _FREE).ljust(len(box), b"\0") if found == GONE else box[:lead] + found + box[end:]


def _size_of(head: bytes, left: int) -> int:
    size, least = big(head, 0), _HEAD
    if size == 1:
        size, least = big(head, 8, 8), _LONG_HEAD
    elif size == 0:  # up to the end of the file, or the end of user data
        size = left
    if size < least or len(head) < least:
        raise NotUnderstood
    return size


def _judged_meta(meta: bytes, editing: Editing) -> bytes:
    """Of the same length: what goes leaves room behind it."""
    judge = editing.judge
    # QuickTime's own has no version.
    lead = _HEAD if meta[12:16] == b"hdlr" else _HEAD + 4
    boxes = list(_boxes(meta, lead))
    if not _ITEMS.isdisjoint(box.kind for box in boxes):
        editing.pass_over()
    keys = next((_keys_of(box.data) for box in boxes if box.kind == b"keys"), [])
    gone: set[int] = set()
    made = [_judged_list(box, keys, judge, gone) if box.kind == b"ilst" else box.head + box.data for box in boxes]
    if gone and keys:
        made = [_without(box, gone) if box.kind == b"keys" else part for box, part in zip(boxes, made, strict=True)]
    body = b"".join(made)
    room = len(meta) - lead - len(body)
    if room < 0:  # it ends before its boxes begin
        raise NotUnderstood
    return meta[:lead] + body + ((room.to_bytes(4, "big") + _FREE).ljust(room, b"\0") if room else b"")


def _boxes(data: bytes, start: int = 0) -> Iterator[_Box]:
    """Boxes with short heads, to the end of the data.

    SECURITY: each is many times as large in memory as in the file (tests/policy/media/test_bounds.py).
    """
    for _ in range(MAX_PARTS):
        if start >= len(data):
            return
        size = big(data, start)
        if not _HEAD <= size <= len(data) - start:
            raise NotUnderstood
        head_end = start + _HEAD
        yield _Box(data[start + 4 : head_end], data[start:head_end], data[head_end : start + size])
        start += size
    raise NotUnderstood


def _keys_of(data: bytes) -> list[str]:
    """Behind a version and a number: boxes, of which the kind is a namespace."""
    return [box.data.decode("utf-8", "replace") for box in _boxes(data, 8)]


def _without(keys: _Box, gone: Iterable[int]) -> bytes:
    kept = [box.head + box.data for place, box in enumerate(_boxes(keys.data, 8), 1) if place not in gone]
    return keys.with_data(keys.data[:4] + len(kept).to_bytes(4, "big") + b"".join(kept))


def _judged_list(listed: _Box, keys: list[str], judge: Judge, gone: set[int]) -> bytes:
    """gone: gets the places of keys whose values go."""
    made: list[bytes] = []
    for item in _boxes(listed.data):
        place = big(item.kind, 0)
        is_keyed = 1 <= place <= len(keys)
        found = _judged_item(item, keys[place - 1] if is_keyed else "", judge)
        if found != GONE:
            kept = place - sum(other < place for other in gone) if is_keyed else place
            made.append(found[:4] + kept.to_bytes(4, "big") + found[8:])
        elif is_keyed:
            gone.add(place)
    return listed.with_data(b"".join(made))


def _judged_item(item: _Box, key: str, judge: Judge) -> bytes:
    if item.kind == _COMMENT:
        key = "comment"
    made: list[bytes] = []
    for box in _boxes(item.data):
        if box.kind == b"name":  # of iTunes' own kind of item
            key = box.data[4:].decode("utf-8", "replace")
        text = box.data[_DATA_LEAD:]
        is_text = box.kind == b"data" and big(box.data, 0) == _UTF8
        found = judge(key, text) if is_text else None
        if found == GONE:
            return GONE
        made.append(box.head + (box.data if found is None else box.data[:_DATA_LEAD] + found))
    return item.with_data(b"".join(made))
