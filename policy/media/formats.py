"""Which reader a file has, told by its first bytes; and the two things that are done with one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from policy.media.editing import Edit, Editing, NotUnderstood, Read, Reading, little
from policy.media.exr import MARK as EXR_MARK
from policy.media.exr import exr
from policy.media.flac import MARK as FLAC_MARK
from policy.media.flac import flac
from policy.media.id3 import MARK as ID3_MARK
from policy.media.id3 import id3
from policy.media.jpeg import MARK as JPEG_MARK
from policy.media.jpeg import jpeg
from policy.media.json_heads import GLB_MARK, glb, safetensors
from policy.media.matroska import MARK as MATROSKA_MARK
from policy.media.matroska import matroska
from policy.media.mp4 import MARK as MP4_MARK
from policy.media.mp4 import mp4
from policy.media.ogg import MARK as OGG_MARK
from policy.media.ogg import ogg
from policy.media.png import MARK as PNG_MARK
from policy.media.png import png
from policy.media.svg import is_markup, svg
from policy.media.webp import MARK as WEBP_MARK
from policy.media.webp import webp
from policy.media.workflow_texts import MAX_OWN_BYTES, is_of_workflow, open_end, own_texts, workflow_goes
from policy.namespace import Namespace

HEAD_BYTES: Final = 16
_READERS: Final[tuple[tuple[int, bytes, Callable[[Editing], Reading]], ...]] = (
    (0, PNG_MARK, png),
    (0, WEBP_MARK, webp),
    (0, JPEG_MARK, jpeg),
    (4, MP4_MARK, mp4),
    (0, MATROSKA_MARK, matroska),
    (0, FLAC_MARK, flac),
    (0, OGG_MARK, ogg),
    (0, ID3_MARK, id3),
    (0, GLB_MARK, glb),
    (0, EXR_MARK, exr),
)


class MediaEdits:
    """What is to be changed in a file, as it is found. asked: what it has to be given next, None when it has seen all that it wants.

    is_understood: it was read to its end, so nothing else in it is known to be a workflow's. Nothing that it is given raises an exception.
    """

    def __init__(self, editing: Editing) -> None:
        self._editing = editing
        self.is_understood = False
        self._reading = self._read()
        self.asked: Read | None = next(self._reading)

    @property
    def edits(self) -> list[Edit]:
        """Those found until now; see Read.keep for which are still to come."""
        return self._editing.edits

    def give(self, data: bytes) -> None:
        """What was asked for, less of it at the end of the file alone."""
        try:
            self.asked = self._reading.send(data)
        except StopIteration:
            self.asked = None

    def _read(self) -> Reading:
        head = yield Read(0, HEAD_BYTES)
        reader = _reader_of(head, self._editing.size)
        if reader is None:
            return
        try:
            yield from reader(self._editing)
            yield from self._editing.search()
            self.is_understood = True
        except NotUnderstood:
            return


def own_workflow(size: int, names: Namespace, maker: str = "") -> MediaEdits:
    """A file with the workflow as its tenant wrote it; every edit has the length of what it replaces. size: of the file. maker: see own_texts.

    SECURITY: the gate itself reads it, also what a tenant has uploaded to its output folder, and holds the edits of each download: of one that would take
    much more than a workflow does the rest stays as it is (tests/policy/media/test_bounds.py).
    """
    return MediaEdits(Editing(own_texts(names, maker), size, max_bytes=MAX_OWN_BYTES))


def without_workflow(size: int) -> MediaEdits:
    """A file without its workflow: for png, webp, jpeg, mp4, webm, mkv, flac, mp3, opus, svg, glb, safetensors and exr. size: of the file.

    What else is in it stays: colors, orientation, encoder; XMP and IPTC go. A file that is not understood may still have its workflow.
    """
    return MediaEdits(Editing(workflow_goes, size, is_suspect=is_of_workflow, open_end=open_end))


def find_edits(media: MediaEdits, read: Callable[[int, int], bytes]) -> list[Edit]:
    """All of them, in the order of the file. read: gives so many bytes from there, fewer at the end of the file alone."""
    while (asked := media.asked) is not None:
        media.give(read(asked.offset, asked.size))
    return media.edits


def _reader_of(head: bytes, size: int) -> Callable[[Editing], Reading] | None:
    for place, mark, reader in _READERS:
        if head.startswith(mark, place):
            return reader
    if is_markup(head):
        return svg
    # It has no mark but its own length, before a JSON object.
    is_safetensors = len(head) > 8 and head[8:9] == b"{" and little(head, 0, 8) <= size - 8
    return safetensors if is_safetensors else None
