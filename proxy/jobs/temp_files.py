"""Whose each file in the temp folder of a ComfyUI is. The folder is shared by all tenants, and ComfyUI counts names up from the files that lie
there, so the name of a deleted file comes back, made by anybody: a name says nothing of its owner, only what is known of its making does."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from policy.principal import TenantId

MAX_UNHELD: Final = 10_000
CLOCK_SLACK_S: Final = 0.05
"""Between a file's time and the end of its job in ComfyUI's history, which is cut to milliseconds; both are of one machine's clock."""


class Made(StrEnum):
    NOW = "now"
    """In the job's own run."""
    EARLIER = "earlier"
    """ComfyUI answered the node from its cache: the file, if it still lies there, is of an earlier run."""
    UNKNOWN = "unknown"
    """One of the two."""


class Maker(Protocol):
    """A job. lost_files: names that were its own, and were deleted or taken over: they never come back to it."""

    @property
    def tenant(self) -> TenantId: ...
    @property
    def comfyui(self) -> str:
        """Whose temp folder it writes into."""
        ...

    @property
    def temp_files(self) -> set[str]: ...
    @property
    def lost_files(self) -> set[str]: ...
    @property
    def wrote_until_s(self) -> float:
        """Unix time; infinity while it runs."""
        ...


@dataclass(slots=True, eq=False)
class _Claim:
    """One name. origin: the job whose run wrote the file. holders: jobs that list it. earlier: whose it is if `origin` only repeated it."""

    origin: Maker
    is_certain: bool
    holders: list[Maker] = field(default_factory=list)
    earlier: Maker | None = None


WrittenAt = Callable[[str, str], float | None]
"""When the file of a name in the temp folder of a ComfyUI was written."""


class Left(NamedTuple):
    """A name that is its job's no more soon. not_after_s: what was written later is another file. comfyui: in whose temp folder it is."""

    not_after_s: float
    comfyui: str


LetGo = Callable[[TenantId, dict[str, Left]], None]


class _Unheld:
    """Names of jobs that were deleted: nobody sees these files, but ComfyUI's cache may show one again to the tenant that made it."""

    def __init__(self) -> None:
        self._claims: dict[str, _Claim] = {}
        self._of: dict[TenantId, dict[str, None]] = {}
        """Oldest first."""

    def get(self, name: str) -> _Claim | None:
        return self._claims.get(name)

    def items(self) -> Iterable[tuple[str, _Claim]]:
        return self._claims.items()

    def put(self, name: str, claim: _Claim) -> None:
        self._claims[name] = claim
        self._of.setdefault(claim.origin.tenant, {})[name] = None

    def discard(self, name: str) -> None:
        claim = self._claims.pop(name, None)
        if claim is not None:
            names = self._of[claim.origin.tenant]
            del names[name]
            if not names:
                del self._of[claim.origin.tenant]

    def let_go(self) -> Iterator[tuple[str, _Claim]]:
        """What is too much, of who has most."""
        while len(self._claims) > MAX_UNHELD:
            most = max(self._of.values(), key=len)
            name = next(iter(most))
            claim = self._claims[name]
            self.discard(name)
            yield name, claim


def keep(tenant: TenantId, names: dict[str, Left]) -> None:
    """Where nobody looks after them."""


def unseen(name: str, comfyui: str) -> float | None:
    """Where the gate does not see ComfyUI's folders."""
    return None


def written_at(folder_of: Callable[[str], Path | None]) -> WrittenAt:
    """When a file was written (Unix seconds), None when there is none, or nothing is seen. One look at the disk of the same machine: microseconds.

    folder_of: the temp folder of a ComfyUI, where the gate sees it.
    """

    def look(name: str, comfyui: str) -> float | None:
        folder = folder_of(comfyui)
        if folder is None:
            return None
        try:
            found = os.lstat(folder / name)
        except (OSError, ValueError):
            return None
        return found.st_mtime if stat.S_ISREG(found.st_mode) else None

    return look


class TempFiles:
    """Of one ComfyUI.

    SECURITY: who wrote a name last owns it alone, and whoever lost it never gets it back (tests/matrix/test_reuse.py)."""

    def __init__(self, look: WrittenAt = unseen) -> None:
        self._look = look
        self._claims: dict[str, _Claim] = {}
        self._unheld = _Unheld()
        self.on_let_go: LetGo = keep
        """Told, by tenant, of files that are remembered no more."""

    def has(self, tenant: TenantId, name: str) -> bool:
        claim = self._claims.get(name)
        if claim is None or claim.origin.tenant != tenant:
            return False
        at_s = self._look(name, claim.origin.comfyui)
        return at_s is None or not self.is_another(name, at_s)

    def made_by(self, name: str) -> Maker | None:
        """The job whose run wrote this file, whoever's it is."""
        claim = self._claims.get(name)
        return None if claim is None else claim.origin

    def origin(self, tenant: TenantId, name: str) -> Maker | None:
        """The job whose run wrote this file of the tenant's, as far as is known; None for a name that is not the tenant's."""
        claim = self._claims.get(name)
        return None if claim is None or claim.origin.tenant != tenant else claim.origin

    def is_another(self, name: str, at_s: float) -> bool:
        """Whether a file that was written then (Unix time) is newer than the end of the run that wrote this name: so it is another one of that name."""
        claim = self._claims.get(name)
        return claim is not None and at_s > claim.origin.wrote_until_s + CLOCK_SLACK_S

    def claim(self, job: Maker, name: str, made: Made) -> None:
        """The job lists this file among its outputs."""
        if name in job.lost_files:
            return
        last = self._claims.get(name) or self._unheld.get(name)
        if last is not None and last.origin is job:
            self._settle(last, name, made)
            return
        is_foreign = last is not None and last.origin.tenant != job.tenant
        if made is Made.EARLIER:
            if last is None or is_foreign:
                job.lost_files.add(name)
            else:
                self._hold(name, last, job)
        elif made is Made.UNKNOWN and is_foreign:
            return
        elif last is not None and last.is_certain and last.origin.wrote_until_s > job.wrote_until_s:
            job.lost_files.add(name)
        else:
            self._write(name, last, job, made)

    def release(self, job: Maker) -> None:
        """The job is gone from the history: its files are nobody's to see."""
        for name in job.temp_files:
            claim = self._claims.get(name)
            if claim is not None and job in claim.holders:
                claim.holders.remove(job)
                if not claim.holders:
                    self._unheld.put(name, self._claims.pop(name))
        job.temp_files.clear()
        # SECURITY: a file that is counted and deleted by nobody would be room beyond the quota (tests/security/test_quota.py).
        gone: dict[TenantId, dict[str, Left]] = {}
        for name, claim in self._unheld.let_go():
            gone.setdefault(claim.origin.tenant, {})[name] = _left_of(claim.origin)
        for tenant, names in gone.items():
            self.on_let_go(tenant, names)

    def move(self, job: Maker, now_s: float) -> None:
        """The job is tried again, at another ComfyUI: what it has made so far stays behind.

        SECURITY: there a file of such a name may be a neighbour's
        (tests/several/test_transfers.py::test_what_a_job_showed_elsewhere_is_not_read_where_it_runs).
        """
        left: dict[str, Left] = {}
        for name in list(job.temp_files):
            claim = self._claims[name]
            claim.holders.remove(job)
            if claim.origin is job:
                del self._claims[name]
                _lose(name, claim)
                left[name] = Left(now_s, job.comfyui)
            elif not claim.holders:
                self._unheld.put(name, self._claims.pop(name))
        job.temp_files.clear()
        if left:
            self.on_let_go(job.tenant, left)

    def forget(self, names: Iterable[str]) -> None:
        """These are gone from the disk, or about to go."""
        for name in names:
            self._unheld.discard(name)
            claim = self._claims.pop(name, None)
            if claim is not None:
                _lose(name, claim)

    def forget_unheld(self, is_restarted: Callable[[str], bool]) -> None:
        """A ComfyUI was started anew: it has emptied its folder, and its cache is empty too. is_restarted: whether one of this name is it."""
        for name in [name for name, claim in self._unheld.items() if is_restarted(claim.origin.comfyui)]:
            self._unheld.discard(name)

    def older(self, tenant: TenantId, before_s: float) -> dict[str, Left]:
        """The tenant's files of runs that ended before that (Unix time)."""
        return {
            name: _left_of(claim.origin)
            for claims in (self._claims.items(), self._unheld.items())
            for name, claim in claims
            if claim.origin.tenant == tenant and claim.origin.wrote_until_s < before_s
        }

    def _settle(self, claim: _Claim, name: str, made: Made) -> None:
        """More is known of a name that the job has already."""
        if made is Made.NOW:
            claim.is_certain = True
        elif made is Made.EARLIER and not claim.is_certain:
            if claim.earlier is None:
                self.forget([name])
            else:
                claim.origin, claim.earlier, claim.is_certain = claim.earlier, None, True

    def _hold(self, name: str, claim: _Claim, job: Maker) -> None:
        self._unheld.discard(name)
        self._claims[name] = claim
        if job not in claim.holders:
            claim.holders.append(job)
            job.temp_files.add(name)

    def _write(self, name: str, last: _Claim | None, job: Maker, made: Made) -> None:
        claim = _Claim(job, made is Made.NOW)
        if last is not None and made is Made.NOW:
            _lose(name, last)
        elif last is not None:
            claim.holders, claim.earlier = last.holders, last.origin
        self._hold(name, claim, job)


def _left_of(job: Maker) -> Left:
    return Left(job.wrote_until_s + CLOCK_SLACK_S, job.comfyui)


def _lose(name: str, claim: _Claim) -> None:
    for holder in claim.holders:
        holder.temp_files.discard(name)
        holder.lost_files.add(name)
    claim.holders.clear()


def end_of(ended_at_s: float | None, over_at_s: float | None) -> float:
    """Until when a job may have written."""
    return next((at_s for at_s in (ended_at_s, over_at_s) if at_s is not None), math.inf)
