"""Vorbis comments: `KEY=text` in FLAC (RFC 9639, 8.6) and in Ogg (RFC 7845, 5.2)."""

from __future__ import annotations

from typing import Final

from policy.media.editing import GONE, Judge, NotUnderstood, little

_MAX_COMMENTS: Final = 4096


def rewrite(data: bytes, judge: Judge) -> tuple[bytes, int]:
    """Judged: of the same length, or shorter where something goes; and where in the old data the comments ended. Raises NotUnderstood."""
    place = 4 + little(data, 0)
    count = little(data, place)
    if place + 4 > len(data) or count > _MAX_COMMENTS:
        raise NotUnderstood
    vendor, place = data[:place], place + 4
    made: list[bytes] = []
    for _ in range(count):
        start = place + 4
        place = start + little(data, place)
        if start > len(data) or place > len(data):
            raise NotUnderstood
        comment = data[start:place]
        key, mark, text = comment.partition(b"=")
        found = judge(key.decode("utf-8", "replace"), text) if mark else None
        if found is None:
            made.append(comment)
        elif found != GONE:
            made.append(key + mark + found)
    comments = b"".join(len(each).to_bytes(4, "little") + each for each in made)
    return vendor + len(made).to_bytes(4, "little") + comments, place
