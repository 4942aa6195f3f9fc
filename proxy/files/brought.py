"""What files the gate has brought to which ComfyUI, as far as it remembers: it starts with nothing, and knows the last ones alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from policy.call import UpstreamPath
from policy.namespace import Folder
from proxy.files.makers import Makers

MAX_REMEMBERED: Final = 10_000


class BroughtFiles:
    """makers: which ComfyUI's folders one reads. target: whose they are."""

    def __init__(self, makers: Makers) -> None:
        self._makers = makers
        self._stamps: OrderedDict[tuple[str, Folder, UpstreamPath], tuple[str, str]] = OrderedDict()
        """Of the file and of its copy, by where the copy is."""
        self._sizes: OrderedDict[tuple[Folder, UpstreamPath], int] = OrderedDict()

    def is_known(self, target: str, folder: Folder, path: UpstreamPath, stamps: tuple[str, str]) -> bool:
        """Whether the file and its copy are as they were when it was brought. stamps: theirs."""
        key = (target, folder, path)
        if self._stamps.get(key) != stamps:
            return False
        self._stamps.move_to_end(key)
        return True

    def note(self, target: str, folder: Folder, path: UpstreamPath, stamps: tuple[str, str], size: int) -> None:
        self._stamps[target, folder, path], self._sizes[folder, path] = stamps, size
        if len(self._stamps) > MAX_REMEMBERED:
            self._stamps.popitem(last=False)
        if len(self._sizes) > MAX_REMEMBERED:
            self._sizes.popitem(last=False)

    def bytes_to(self, comfyui: str, files: Iterable[tuple[Folder, UpstreamPath]]) -> list[int]:
        """Sizes of those that were not brought to it before; 0 for one that was brought nowhere."""
        far = [file for file in files if (self._makers.place_of(file[0], comfyui), *file) not in self._stamps]
        return [self._sizes.get(file, 0) for file in far]

    def clear(self) -> None:
        self._stamps.clear()
        self._sizes.clear()
