"""Which of several ComfyUIs has what a call asks for: the one that runs the job, or that made the file."""

from __future__ import annotations

from collections.abc import Callable, Container

from policy.call import UpstreamCall
from policy.makers import maker_of
from policy.namespace import ROOT, Folder
from policy.principal import TenantId
from proxy.jobs.known_jobs import KnownJobs


class Makers:
    """Every method gives a name of `others`, or "" for the first. others: those beside the first. sharing: those of them that see the first's folders, so
    that it has what they make, but for their temp folders. Both are replaced when some come or go. absent_for: names of some that are not there any more,
    each with a tenant whose jobs it ran.

    SECURITY: which one is asked follows from names that a rule has made, and is one of these whatever they say (tests/proxy/files/test_makers.py).
    """

    def __init__(
        self,
        jobs: KnownJobs,
        others: Container[str] = (),
        sharing: Container[str] = (),
        absent_for: Container[tuple[str, str]] = (),
    ) -> None:
        self._jobs = jobs
        self.others = others
        self.sharing = sharing
        self._absent_for = absent_for
        self.is_open: Callable[[str, TenantId], bool] = lambda comfyui, tenant: True
        """Whether the ComfyUI of a name runs the tenant's jobs, by the configuration."""

    def of_call(self, call: UpstreamCall) -> str:
        if call.jobs:
            job = self._jobs.job(call.jobs[0])
            return self._known("" if job is None else job.comfyui)
        return self._known(call.comfyui) if call.file is None else self.of_file(Folder(call.file[0]), call.file[1])

    def of_file(self, folder: Folder, path: str) -> str:
        """path: in the folder, in ComfyUI's names."""
        if folder is Folder.INPUT:
            return ""
        made = maker_of(path) if path.startswith(f"{ROOT}/") else self._of_run(path)
        return "" if folder is Folder.OUTPUT and made in self.sharing else self._known(made)

    def absent_maker_of(self, call: UpstreamCall) -> str:
        """The name of one that is not there any more and may have made the file of a call; "" for all others.

        SECURITY: a tenant whose jobs it never ran is not told that it was there
        (tests/several/test_fleet_files.py::test_that_one_has_gone_is_told_to_those_alone_whose_jobs_it_ran).
        """
        path = "" if call.file is None or call.file[0] == Folder.INPUT else call.file[1]
        made = maker_of(path)
        return made if made and (made, path.split("/", 2)[1]) in self._absent_for else ""

    def is_told(self, call: UpstreamCall, comfyui: str) -> bool:
        """Whether who asks for a file may know that the ComfyUI of that name does not answer.

        SECURITY: which there are, and how they do, is told to nobody who guesses at a name
        (tests/several/test_fleet_files.py::test_that_one_is_away_is_told_to_those_alone_whose_jobs_it_runs).
        """
        if call.file is None or call.jobs or maker_of(call.file[1]) != comfyui:
            return True  # the caller's own job is there, or has made it
        tenant = TenantId(call.file[1].split("/", 2)[1])
        return self.is_open(comfyui, tenant) or self._has_jobs_at(comfyui, tenant)

    def place_of(self, folder: Folder, comfyui: str) -> str:
        """Which one's folder this ComfyUI reads."""
        return "" if folder is not Folder.TEMP and comfyui in self.sharing else self._known(comfyui)

    def _has_jobs_at(self, comfyui: str, tenant: TenantId) -> bool:
        jobs = self._jobs.of(tenant)
        known = (
            self._jobs.job(prompt_id) for ids in (jobs.running, jobs.pending, jobs.finished) for prompt_id in ids()
        )
        return any(job is not None and job.comfyui == comfyui for job in known)

    def _of_run(self, path: str) -> str:
        """Of a file among everybody's."""
        made = self._jobs.temp_files.made_by(path)
        return "" if made is None else made.comfyui

    def _known(self, name: str) -> str:
        return name if name in self.others else ""
