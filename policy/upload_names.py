"""Uploads under a name that is taken. ComfyUI compares each, on its event loop, with every file of that name (server.py, image_upload), and
gives it the next free number: `photo (3).png`. The more there are, the longer nobody else is answered."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from policy.spelling import MAX_LENGTH, spell

MAX_COMPARED_BYTES: Final = 256 * 1024**2
"""What ComfyUI may read for one upload: some tenths of a second."""
MAX_COPIES: Final = 1000
MASK_BYTES: Final = 32 * 1024**2
"""Taken for the size of a picture with a mask: what is stored is the picture that the mask is put on."""

_NUMBER = re.compile(r" \(([1-9]\d{0,8})\)(?=\Z)")


@dataclass(frozen=True, slots=True)
class Namesakes:
    """What is known of the files of one name. copies: the highest number that one of them has; stored_bytes: of all of them."""

    copies: int = 0
    stored_bytes: int = 0

    def after(self, number: int, size_bytes: int) -> Namesakes:
        """When ComfyUI has given that number to an upload, or has found it there among those up to it."""
        if number <= self.copies:
            return self
        return Namesakes(number, self.stored_bytes + size_bytes * (number - self.copies + (not self.copies)))

    def beside(self, sizes_bytes: Collection[int]) -> Namesakes:
        """With files besides that their uploaders numbered: ComfyUI compares with them all the same."""
        return Namesakes(self.copies + len(sizes_bytes), self.stored_bytes + sum(sizes_bytes))

    def is_crowded(self, size_bytes: int) -> bool:
        """Whether comparing one more of that size with all of them takes too long. A name with one file, or none, is not."""
        if not self.copies:
            return False
        return self.copies >= MAX_COPIES or self.stored_bytes + (self.copies + 1) * size_bytes > MAX_COMPARED_BYTES


def number_of(sent: str, told: str) -> int:
    """The number that ComfyUI gave to an upload: 0 when it kept its name."""
    stem, extension = _split(sent)
    if not told.startswith(stem) or not told.endswith(extension):
        return 0
    found = _NUMBER.fullmatch(told[len(stem) : len(told) - len(extension)])
    return int(found[1]) if found else 0


def unnumbered(name: str) -> tuple[str, int] | None:
    """Of which name an upload called `photo (3).png` is a copy in ComfyUI's eyes, and its number; None for a name that has none."""
    stem, extension = _split(name)
    found = _NUMBER.search(stem)
    if found is None or found.end() != len(stem) or not found.start():
        return None
    return stem[: found.start()] + extension, int(found[1])


def set_apart(name: str, token: str) -> str:
    """The upstream spelling of a name that no other file has, in the form of ComfyUI's own: `photo (token).png`. A long stem is cut."""
    stem, extension = _split(name)
    while len((spelled := spell(f"{stem} ({token}){extension}")).encode()) > MAX_LENGTH and stem:
        stem = stem[:-8]
    return spelled


def _split(name: str) -> tuple[str, str]:
    """As `os.path.splitext`: leading dots are no extension."""
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension) if stem.strip(".") else (name, "")
