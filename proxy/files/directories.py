"""Where the folders of each ComfyUI are, as the gate sees them: `directory` of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from policy.call import UpstreamPath
from policy.makers import maker_of
from policy.namespace import Folder, Namespace
from policy.principal import TenantId


def _first(folder: Folder, path: UpstreamPath) -> str:
    """Where there is one."""
    return ""


class Home(NamedTuple):
    """A folder of files. root: what their names are in. copies: folders in it of files that are elsewhere, too."""

    root: Path
    folder: Path
    copies: frozenset[str] = frozenset()


@dataclass(slots=True)
class Directories:
    """first: the first one's base folder, None where the gate does not see it. others: those of the others, by name. sharing: the others whose folders are
    the first's, but for temp. maker_of: which of them has a file, "" for the first (proxy/files/makers.py). absent: names of some that are not there any
    more, whose folders are not seen.
    """

    first: Path | None = None
    others: Mapping[str, Path | None] = field(default_factory=dict)
    sharing: frozenset[str] = frozenset()
    maker_of: Callable[[Folder, UpstreamPath], str] = _first
    absent: Container[str] = ()

    def change(self, others: Mapping[str, Path | None], sharing: frozenset[str]) -> None:
        """Some have come or gone. Threads read meanwhile: each sees one of both as it was, or as it will be."""
        self.sharing |= sharing
        self.others = others
        self.sharing = sharing

    def root_of(self, folder: Folder, path: UpstreamPath) -> Path | None:
        """The folder that this path is in; None where the gate does not see it."""
        if folder is not Folder.INPUT and maker_of(path) in self.absent:
            return None
        base = self._base_of(self.maker_of(folder, path))
        return None if base is None else base / folder.value

    def writer_of(self, folder: Folder, path: UpstreamPath) -> str:
        """Which of the others has written a file, wherever it lies, also one that is not there any more; "" for the first."""
        name = maker_of(path) or self.maker_of(folder, path)
        return name if name in self.others or name in self.absent else ""

    def temp_of(self, comfyui: str) -> Path | None:
        """The temp folder of this ComfyUI."""
        base = self._base_of(comfyui)
        return None if base is None else base / Folder.TEMP.value

    def elsewhere(self, folder: Folder, path: UpstreamPath) -> list[Path]:
        """The folders that a copy of this file may be in."""
        bases = (self.first, *self._separate().values())
        own = self.root_of(folder, path)
        return [base / folder.value for base in bases if base is not None and base / folder.value != own]

    def roots_of(self, tenant: TenantId, folder: Folder) -> list[Path]:
        """The tenant's folders at each ComfyUI, the first one's first: with what the gate has copied from one to another."""
        bases = dict.fromkeys(base for base in (self.first, *self._separate().values()) if base is not None)
        return [base / folder.value / Namespace(tenant).root for base in bases]

    def homes_of(self, tenant: TenantId, folder: Folder) -> list[Home]:
        """Where the tenant's own files are, each once: at the first one, and what another one has made, there."""
        own, separate = Namespace(tenant).root, self._separate()
        homes = []
        if self.first is not None:
            root = self.first / folder.value / own
            homes.append(Home(root, root, frozenset(f"{root}/@{name}" for name in separate)))
        for name, base in separate.items():
            if base is not None and folder is Folder.OUTPUT:
                root = base / folder.value / own
                homes.append(Home(root, root / f"@{name}"))
        return homes

    def _separate(self) -> dict[str, Path | None]:
        """Those that have folders of their own."""
        return {name: base for name, base in self.others.items() if name not in self.sharing}

    def _base_of(self, comfyui: str) -> Path | None:
        # SECURITY: the first may have other files of the names that one had which is not there any more (tests/proxy/files/test_directories.py).
        return None if comfyui in self.absent else self.others.get(comfyui, self.first)


UNSEEN: Final = Directories()
"""Where the gate sees none."""
