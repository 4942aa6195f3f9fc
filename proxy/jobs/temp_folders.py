"""Whose the files in the temp folders of all ComfyUIs are. Two of them may give two files one name, which is no more one file than in two folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from policy.principal import TenantId
from proxy.jobs.temp_files import Left, LetGo, Made, Maker, TempFiles, WrittenAt, keep, unseen


class TempFolders:
    """A name alone leads to the file of it that was written last.

    SECURITY: so it leads whoever asks to the same one, and the others are nobody's to see meanwhile, but counted and deleted as their tenants' own
    (tests/proxy/jobs/test_temp_folders.py).
    """

    def __init__(self, look: WrittenAt = unseen) -> None:
        self._look = look
        self._folders: dict[str, TempFiles] = {}
        """By ComfyUI."""
        self.on_let_go: LetGo = keep
        """Told, by tenant, of files that are remembered no more."""

    def has(self, tenant: TenantId, name: str) -> bool:
        folder = self._last(name)
        return folder is not None and folder.has(tenant, name)

    def made_by(self, name: str) -> Maker | None:
        """The job whose run wrote this file, whoever's it is."""
        folder = self._last(name)
        return None if folder is None else folder.made_by(name)

    def origin(self, tenant: TenantId, name: str) -> Maker | None:
        """The job whose run wrote this file of the tenant's, as far as is known; None for a name that is not the tenant's."""
        folder = self._last(name)
        return None if folder is None else folder.origin(tenant, name)

    def is_another(self, name: str, at_s: float) -> bool:
        """See TempFiles."""
        folder = self._last(name)
        return folder is not None and folder.is_another(name, at_s)

    def claim(self, job: Maker, name: str, made: Made) -> None:
        """The job lists this file among its outputs."""
        self._of(job.comfyui).claim(job, name, made)

    def release(self, job: Maker) -> None:
        """The job is gone from the history: its files are nobody's to see."""
        self._of(job.comfyui).release(job)

    def move(self, job: Maker, now_s: float) -> None:
        """The job is tried again, at another ComfyUI: what it has made so far stays behind."""
        self._of(job.comfyui).move(job, now_s)

    def lose(self, job: Maker, name: str) -> None:
        """The file that the job had of this name is gone, or another one."""
        self._of(job.comfyui).forget([name])

    def forget(self, files: Iterable[tuple[str, Left]]) -> None:
        """These are gone from the disk, or about to go."""
        for name, left in files:
            self._of(left.comfyui).forget([name])

    def forget_unheld(self, is_restarted: Callable[[str], bool]) -> None:
        """A ComfyUI was started anew: it has emptied its folder, and its cache is empty too. is_restarted: whether one of this name is it."""
        for folder in self._folders.values():
            folder.forget_unheld(is_restarted)

    def older(self, tenant: TenantId, before_s: float) -> list[tuple[str, Left]]:
        """The tenant's files of runs that ended before that (Unix time), by name."""
        return [each for folder in self._folders.values() for each in folder.older(tenant, before_s).items()]

    def _of(self, comfyui: str) -> TempFiles:
        folder = self._folders.get(comfyui)
        if folder is None:
            folder = self._folders[comfyui] = TempFiles(self._look)
            folder.on_let_go = lambda tenant, names: self.on_let_go(tenant, names)
        return folder

    def _last(self, name: str) -> TempFiles | None:
        """Where a file of this name was written last."""
        written = [
            (maker.wrote_until_s, each) for each in list(self._folders.values()) if (maker := each.made_by(name))
        ]
        return max(written, key=lambda each: each[0], default=(0.0, None))[1]
