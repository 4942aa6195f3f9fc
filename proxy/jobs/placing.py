"""Chooses for the dispatcher where there are several ComfyUIs: what each is, and what it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.needs import Needs, read_needs
from policy.placement import Seat, Waiting, bring_s
from policy.principal import TenantId
from proxy.config.comfyui import ComfyUISettings
from proxy.jobs.job_rows import Given
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry

Lacks = Callable[[ComfyUISettings, Needs], str]
"""What a ComfyUI lacks of what a job needs, in words; "" where it has all."""
Files = Sequence[tuple[Folder, UpstreamPath]]
Sources = Callable[[Needs, str], Mapping[str, Files]]
"""The ComfyUIs that must be there when a job runs at another one, by name: they have these files, which are brought to it."""
MAX_KNOWN: Final = 20_000
LOOK_S: Final = 0.001
"""How long it takes at least to bring a file."""
MAX_COPIED: Final = 16
"""Files of a job that may be read from their copies, where who has them is away; with more it waits."""
MAX_FILES: Final = 16
"""Of a job that are looked at to say how long it takes to bring them."""


NO_SOURCES: Final[Mapping[str, Files]] = MappingProxyType({})


class _Found(NamedTuple):
    """Of a job and a ComfyUI that fits. sources: who must be there, with the first of the files that they have. files: the first ones of those to be
    brought, and how many there are."""

    sources: Mapping[str, Files] = NO_SOURCES
    files: Files = ()
    total: int = 0


class _TakenUp(NamedTuple):
    """A configuration. settings: of those that may be given jobs, by name. known: what was found by them, of a job and a ComfyUI; None where it does not
    fit.

    SECURITY: each has what was found by itself alone: whose jobs run where may change while the thread of the database looks for it
    (tests/proxy/jobs/test_placing_changes.py).
    """

    configured: Sequence[ComfyUISettings]
    settings: Mapping[str, ComfyUISettings]
    known: dict[tuple[int, str, str], _Found | None]


@dataclass(frozen=True, slots=True)
class _Identity:
    """Equal to itself alone, and keeps it alive."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


class Placing:
    """comfyuis: those that may be given jobs, the first one first. configured: their settings now. window: of each. is_there: whether it can be reached."""

    def __init__(
        self,
        registry: JobRegistry,
        records: JobRecords,
        comfyuis: Sequence[ComfyUISettings],
        configured: Callable[[], Sequence[ComfyUISettings]],
        window: Callable[[ComfyUISettings], int],
        is_there: Callable[[str], bool],
    ) -> None:
        self._registry = registry
        self._records = records
        self._configured = configured
        self._taken_up = _TakenUp(comfyuis, {comfyui.name: comfyui for comfyui in comfyuis}, {})
        self._window = window
        self.is_there = is_there
        self.lacks: Lacks = lambda comfyui, needs: ""
        self.sources: Sources = lambda needs, comfyui: NO_SOURCES
        self.has_copies: Callable[[TenantId, Files], bool] = lambda tenant, files: False
        """Whether all of a tenant's files are known to be read from copies where who has them is away."""
        self.look_for_copies: Callable[[], None] = lambda: None
        """Has that found out of which it was not known."""
        self.far_files: Callable[[Needs, str], Files] = lambda needs, comfyui: ()
        """Files of a job that would have to be brought to a ComfyUI."""
        self.bytes_to: Callable[[str, Files], Sequence[int]] = lambda comfyui, files: ()
        """Of those of such files that were not brought there before: how large they are, 0 where that is not known."""
        self.brings_for: Callable[[str], frozenset[str]] = lambda comfyui: frozenset()
        """Tenants for whose jobs files are brought to the ComfyUI of a name."""
        self.version: Callable[[str], str] = lambda comfyui: ""
        """Of what the ComfyUI of a name has."""

    async def give(self, ready: Sequence[str]) -> list[Given]:
        """ready: those that can be given jobs at the moment. Raises DatabaseUnavailable."""
        there = [comfyui for comfyui in self._current().settings.values() if self.is_there(comfyui.name)]
        seats = [self._seat_of(comfyui, is_ready=comfyui.name in ready) for comfyui in there]
        given = await self._records.give(seats, self._ready_in) if seats else []
        self.look_for_copies()
        return given

    def _seat_of(self, comfyui: ComfyUISettings, *, is_ready: bool) -> Seat:
        """Of its window one place at least is for jobs whose files are there already, where it has more than one."""
        window = self._window(comfyui)
        behind = frozenset(map(TenantId, self.brings_for(comfyui.name))) | self._brought_elsewhere(comfyui.name)
        far_room = max(1, window - 1) - len(behind)
        return Seat(comfyui.name, window if is_ready else 0, weight=comfyui.weight, far_room=far_room, behind=behind)

    def _brought_elsewhere(self, comfyui: str) -> frozenset[TenantId]:
        """Whose jobs other gates have given to a ComfyUI that has not got them yet.

        SECURITY: else a tenant would have as much brought at a time as there are gates, and no room be left
        (tests/several/test_rolling.py::test_what_two_gates_have_brought_for_one_tenant_leaves_room_for_others).
        """
        given, gate = self._registry.given_to(comfyui), self._records.gate
        return frozenset(job.tenant for job in given if job.gate != gate and job.seen_in < 0)

    def has_room(self) -> bool:
        """Whether one of them may be given a job, as far as is known in memory."""
        return any(
            self.is_there(comfyui.name) and len(self._registry.given_to(comfyui.name)) < self._window(comfyui)
            for comfyui in self._current().settings.values()
        )

    def change(self, comfyuis: Sequence[ComfyUISettings]) -> None:
        """Some have come or gone."""
        configured = self._taken_up.configured
        self._taken_up = _TakenUp(configured, {comfyui.name: comfyui for comfyui in comfyuis}, {})

    def _current(self) -> _TakenUp:
        """One that is configured no more keeps the settings that it had last."""
        configured, last = self._configured(), self._taken_up
        if configured is last.configured:
            return last
        changed = {comfyui.name: comfyui for comfyui in configured if comfyui.name in last.settings}
        self._taken_up = found = _TakenUp(configured, {**last.settings, **changed}, {})
        return found

    def basis(self) -> object:
        """What `places_of` goes by: equal to what it was before, as long as nothing has changed that jobs are placed by."""
        current = self._current()
        return _Identity(current), tuple(map(self.version, current.settings))

    def places_of(self, tenant: TenantId, needs: bytes) -> dict[str, frozenset[str]]:
        """By the names of those that have what a job needs: the others that must be there too, since they have files that it reads."""
        found, settings = read_needs(needs) if needs else None, self._current().settings.values()
        able = [each.name for each in settings if self._fits(each, tenant, found)]
        return {name: frozenset() if found is None else frozenset(self.sources(found, name)) for name in able}

    def speeds(self) -> dict[str, float]:
        """By name, 1 is usual."""
        return {name: comfyui.weight for name, comfyui in self._current().settings.items()}

    def open_to(self, tenant: TenantId) -> tuple[ComfyUISettings, ...]:
        """Those that run the tenant's jobs, the first one first."""
        comfyuis = self._current().settings.values()
        return tuple(comfyui for comfyui in comfyuis if not comfyui.tenants or tenant in comfyui.tenants)

    def is_able(self, comfyui: str, tenant: TenantId, needs: bytes) -> bool:
        """Whether it is there, and can run a job that needs this, and nothing is to be brought to it before."""
        found = read_needs(needs) if needs else None
        if found is not None and self.far_files(found, comfyui):
            return False
        settings = self._current().settings.get(comfyui)
        return settings is not None and self.is_there(comfyui) and self._fits(settings, tenant, found)

    def _ready_in(self, comfyui: str, job: Waiting) -> float | None:
        """Asked of many jobs again and again."""
        current = self._current()
        # SECURITY: not by its id, which may come again, for another job (tests/proxy/jobs/test_placing.py).
        key = (job.sequence, comfyui, self.version(comfyui))
        if key not in current.known:
            if len(current.known) >= MAX_KNOWN:
                current.known.clear()
            settings = current.settings.get(comfyui)
            fits = settings is not None and self._fits(settings, job.tenant, job.needs)
            current.known[key] = self._look_at(job.needs, comfyui) if fits else None
        known = current.known[key]
        # SECURITY: one that cannot be sent would come back again and again, and those behind it with it
        # (tests/several/test_bringing.py::test_a_job_whose_file_is_away_keeps_nobody_waiting).
        if known is None or not self._can_be_read(job.tenant, known.sources):
            return None
        if not known.files:
            return 0.0
        sizes = self.bytes_to(comfyui, known.files)
        # What was brought before is looked at, and may be another file by now.
        return max(LOOK_S, bring_s(sizes, len(sizes) * known.total // len(known.files)))

    def _look_at(self, needs: Needs | None, comfyui: str) -> _Found:
        if needs is None or not needs.files:
            return _Found()
        files = self.far_files(needs, comfyui)
        sources = {name: tuple(held[: MAX_COPIED + 1]) for name, held in self.sources(needs, comfyui).items()}
        return _Found(sources, tuple(files[:MAX_FILES]), len(files))

    def _can_be_read(self, tenant: TenantId, sources: Mapping[str, Files]) -> bool:
        """Whether all of these are there, or what they have is read from its copies."""
        away = [file for name, files in sources.items() if not self.is_there(name) for file in files]
        return not away or (len(away) <= MAX_COPIED and self.has_copies(tenant, away))

    def _fits(self, settings: ComfyUISettings, tenant: TenantId, needs: Needs | None) -> bool:
        if settings.tenants and tenant not in settings.tenants:
            return False
        is_first = settings.name == self._registry.comfyuis[0]
        if needs is None:  # of its files it is not known which they are
            return is_first
        return (is_first or not needs.first_only) and not self.lacks(settings, needs)
