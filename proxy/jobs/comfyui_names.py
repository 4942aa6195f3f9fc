"""The names of the ComfyUIs that there are, and of those that jobs have been at and the configuration does not name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import overload

from proxy.jobs.job import Job
from proxy.jobs.job_rows import JobRow


class ComfyUINames(Sequence[str]):
    """The first one first. Others may come and go while the gate runs; the first stays."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self.absent: set[str] = set()
        """Of ComfyUIs that jobs have been at and that are not there any more, or not yet."""
        self.absent_for: set[tuple[str, str]] = set()
        """These names, each with a tenant whose jobs have been there."""
        self._moved: dict[str, str] = {}
        """At which of those jobs are or were that are taken for the first one's, by id."""

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._names[index]

    def __len__(self) -> int:
        return len(self._names)

    @property
    def has_others(self) -> bool:
        return len(self._names) > 1

    def at_known(self, row: JobRow) -> JobRow:
        """As one of the first's where its ComfyUI is not there: the first finds out what became of it."""
        self._moved.pop(row.prompt_id, None)
        if not row.comfyui or row.comfyui in self._names:
            return row
        self.absent.add(row.comfyui)
        self.absent_for.add((row.comfyui, row.tenant))
        self._moved[row.prompt_id] = row.comfyui
        return row._replace(comfyui=self._names[0])

    def forget(self, prompt_id: str) -> None:
        """There is no such job any more."""
        self._moved.pop(prompt_id, None)

    def change(
        self,
        names: Sequence[str],
        jobs: Iterable[Job] = (),
        job_of: Callable[[str], Job | None] = lambda prompt_id: None,
    ) -> None:
        """Others have come, with the jobs that were there before, or gone. jobs: at those that have gone. job_of: by id."""
        self.absent |= set(self._names) - set(names)
        self.absent -= set(names)
        self.absent_for -= {each for each in self.absent_for if each[0] in names}
        self._names = tuple(names)
        for prompt_id in [prompt_id for prompt_id, name in self._moved.items() if name in names]:
            name = self._moved.pop(prompt_id)
            if (job := job_of(prompt_id)) is not None:
                job.comfyui, job.seen_in = name, -1
        for job in jobs:
            self._moved[job.prompt_id] = job.comfyui
            self.absent_for.add((job.comfyui, job.tenant))
            job.comfyui, job.seen_in = names[0], -1
