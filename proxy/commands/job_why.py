"""Why a job waits, or where it is: what `comfygate jobs why` says, in words and as JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from policy.catalogue import Catalogue
from policy.fitting import fits
from policy.forecast import Expected, come_before
from policy.makers import maker_of
from policy.namespace import Folder
from policy.needs import Needs, read_needs
from policy.placement import ReadyIn, Seat, Waiting, bring_s
from policy.principal import TenantId
from proxy.commands.catalogue import ask_one
from proxy.commands.comfyui_queues import ask_queues
from proxy.commands.job_texts import as_json, describe
from proxy.commands.terminal import printable
from proxy.config import Config
from proxy.config.comfyui import ComfyUISettings
from proxy.jobs.job import COMFYUI_GONE
from proxy.jobs.job_rows import StoredState
from proxy.jobs.operator_operations import Foreseen, Standing, foresee
from proxy.jobs.store_reading import needs_of
from proxy.limits.effective_limits import EffectiveLimits
from proxy.persistence.operations import Database

_LOOKED_AT: Final = 500
"""Jobs that come before it of which it is looked where they go."""
_ENDED: Final[Mapping[str, str]] = {
    StoredState.SUCCEEDED: "It has succeeded.",
    StoredState.FAILED: "It has failed.",
    StoredState.CANCELED: "It was canceled.",
}


class Candidate(NamedTuple):
    """A ComfyUI, for a job that waits. lacks: of what the job needs, in words; "" where it has all, and where that is not known.

    jobs, window: how many it has, and may have. has_models: it was given the same models last. has_files: it has what the job reads, before
    anything is brought. is_drained: it is given no jobs.
    """

    name: str
    lacks: str
    is_there: bool
    jobs: int
    window: int
    has_models: bool
    is_drained: bool = False
    has_files: bool = False
    is_stuck: bool = False

    @property
    def has_room(self) -> bool:
        return self.jobs < self.window

    @property
    def is_able(self) -> bool:
        return self.is_there and not self.lacks and not self.is_drained and not self.is_stuck


class Why(NamedTuple):
    """reasons: sentences. before: jobs of its own tenant, and of others, that are given before it, where it may go; None where it does not wait."""

    standing: Standing
    reasons: list[str]
    before: tuple[int, int] | None = None
    candidates: tuple[Candidate, ...] = ()


async def explain_job(config: Config, database: Database, standing: Standing) -> Why:
    """Asks the ComfyUIs what they have, where it matters."""
    limits = EffectiveLimits(config.limits, {name: tenant.limits for name, tenant in config.tenants.items()})
    if standing.job.state != StoredState.WAITING:
        return explain(standing, config, {}, {})
    asked = await asyncio.gather(*(ask_one(config, comfyui) for comfyui in config.comfyuis))
    catalogues = {
        comfyui.name: found if isinstance(found, Catalogue) else None
        for comfyui, found in zip(config.comfyuis, asked, strict=True)
    }
    if len(asked) == 1:
        return explain(standing, config, catalogues, limits.weights())
    queues = await ask_queues(config)
    stuck = frozenset(name for name, queue in queues.items() if queue is not None and queue.stands)
    seats = [
        Seat(comfyui.name, config.window_of(comfyui), weight=comfyui.weight)
        for comfyui in config.comfyuis
        if catalogues[comfyui.name] is not None and comfyui.name not in stuck
    ]
    ready_in = _ready_in(config, catalogues)
    foreseen = await database.read(foresee, standing.job.prompt_id, seats, ready_in, time.time(), limits.weights())
    beside = await _find_beside(config, database, standing, catalogues, limits.weights())
    return explain(standing, config, catalogues, limits.weights(), foreseen, stuck, beside)


async def _find_beside(
    config: Config,
    database: Database,
    standing: Standing,
    catalogues: Mapping[str, Catalogue | None],
    weights: Mapping[str, float],
) -> frozenset[str]:
    """Ids of jobs that come before it, of which none goes where it may go."""
    before = list(islice(_come_before(standing, weights), _LOOKED_AT))
    needs = await database.read(needs_of, [each.prompt_id for _, each in before])

    def places_of(tenant: str, found: Needs | None) -> set[str]:
        return {
            each.name
            for index, each in enumerate(config.comfyuis)
            if not _lacks(each, tenant, found, catalogues[each.name], is_first=index == 0)
        }

    own = places_of(standing.job.tenant, standing.needs)
    return frozenset(
        each.prompt_id
        for tenant, each in before
        if own.isdisjoint(places_of(tenant, read_needs(needs[each.prompt_id]) if each.prompt_id in needs else None))
    )


def _ready_in(config: Config, catalogues: Mapping[str, Catalogue | None]) -> ReadyIn:
    """What the gates have brought already is not known here."""
    comfyuis = {comfyui.name: (comfyui, index == 0) for index, comfyui in enumerate(config.comfyuis)}

    def ready_in(name: str, job: Waiting) -> float | None:
        comfyui, is_first = comfyuis[name]
        lacks = _lacks(comfyui, job.tenant, job.needs, catalogues[name], is_first=is_first)
        if lacks or _file_away(comfyui, job.needs, config, catalogues):
            return None
        far = _far_files(comfyui, job.needs, config)
        return bring_s([0] * len(far), len(far))

    return ready_in


def explain(
    standing: Standing,
    config: Config,
    catalogues: Mapping[str, Catalogue | None],
    weights: Mapping[str, float],
    foreseen: Foreseen | None = None,
    stuck: Collection[str] = (),
    beside: Collection[str] = (),
) -> Why:
    """catalogues: of all ComfyUIs, by name; None of one that does not answer. weights: by tenant. foreseen: where it goes, as far as that is known.
    stuck: names of those that run nothing of what they have. beside: see _find_beside."""
    job = standing.job
    if job.has_ended:
        return Why(standing, [_ENDED[job.state]])
    if job.state != StoredState.WAITING:
        words = "runs it" if job.state == StoredState.RUNNING else "has it in its queue"
        attempts = job.told_attempts()
        had_models = bool(attempts) and attempts[-1].get("had_models") is True
        return Why(standing, [f"{job.comfyui} {words}.", *(["It had its models already."] if had_models else [])])
    candidates = tuple(
        _look_at(comfyui, standing, config, catalogues, is_first=index == 0)._replace(is_stuck=comfyui.name in stuck)
        for index, comfyui in enumerate(config.comfyuis)
    )
    before = _count_before(standing, weights, beside)
    return Why(standing, _reasons(standing, candidates, before, foreseen), before, candidates)


def _look_at(
    comfyui: ComfyUISettings,
    standing: Standing,
    config: Config,
    catalogues: Mapping[str, Catalogue | None],
    *,
    is_first: bool,
) -> Candidate:
    catalogue = catalogues[comfyui.name]
    others = {each.name for each in config.comfyuis[1:]}
    # The first one may have had another name, or none.
    jobs = sum(
        count for name, count in standing.has.items() if (name not in others if is_first else name == comfyui.name)
    )
    lacks = ""
    if config.comfyui:
        lacks = _lacks(comfyui, standing.job.tenant, standing.needs, catalogue, is_first=is_first)
        lacks = lacks or _file_away(comfyui, standing.needs, config, catalogues)
    models = standing.needs.models if standing.needs else ()
    has_models = bool(models) and tuple(standing.models.get(comfyui.name, ())) == models
    # With one ComfyUI no gate looks for its name.
    is_drained = len(config.comfyuis) > 1 and comfyui.name in standing.drained
    window = config.window_of(comfyui)
    reads = len(config.comfyuis) > 1 and bool(standing.needs and standing.needs.files)
    has_files = reads and not _far_files(comfyui, standing.needs, config)
    return Candidate(comfyui.name, lacks, catalogue is not None, jobs, window, has_models, is_drained, has_files)


def _lacks(
    comfyui: ComfyUISettings, tenant: str, needs: Needs | None, catalogue: Catalogue | None, *, is_first: bool
) -> str:
    if comfyui.tenants and tenant not in comfyui.tenants:
        return f"{tenant} among its tenants"
    if needs is None:
        return "" if is_first else "what the job needs, which was not recorded: such a job goes to the first one"
    if needs.first_only and not is_first:
        name, input_name = needs.first_only[0]
        return f"what {name}.{input_name} reads or writes: only the first one has that"
    if catalogue is None:
        return _label_missing(needs, comfyui.labels)
    return fits(needs, catalogue, comfyui.labels)


def _file_away(
    comfyui: ComfyUISettings, needs: Needs | None, config: Config, catalogues: Mapping[str, Catalogue | None]
) -> str:
    """A file that another one would have to give, which is away (proxy/files/transfers.py, sources). Copies are the gate's to know."""
    for has in _far_files(comfyui, needs, config):
        if has.directory is None and catalogues[has.name] is None:
            unless = ", unless the storage has a copy that stands for it" if config.storage.is_on else ""
            return f"a file that {has.name} has, which does not answer{unless}"
    return ""


def _far_files(comfyui: ComfyUISettings, needs: Needs | None, config: Config) -> list[ComfyUISettings]:
    """Who has it, of each file that would have to be brought to this one."""
    first, *others = config.comfyuis

    def place(each: ComfyUISettings, folder: Folder) -> ComfyUISettings:
        return first if each.shared_directory and folder is not Folder.TEMP else each

    found = []
    for folder, path in needs.files if needs else ():
        name = "" if folder is Folder.INPUT else maker_of(path)
        has = place(next((each for each in others if each.name == name), first), folder)
        if has.name != place(comfyui, folder).name:
            found.append(has)
    return found


def _label_missing(needs: Needs, labels: Sequence[str]) -> str:
    return fits(Needs(labels=needs.labels), Catalogue(), labels)


def _come_before(standing: Standing, weights: Mapping[str, float]) -> Iterator[tuple[TenantId, Expected]]:
    job, tenant = standing.job, TenantId(standing.job.tenant)
    expected = Expected(job.prompt_id, job.cost_s, job.sequence)
    return come_before(expected, tenant, standing.waiting, standing.tags, standing.virtual_time, weights)


def _count_before(standing: Standing, weights: Mapping[str, float], beside: Collection[str]) -> tuple[int, int]:
    own = others = 0
    for tenant, each in _come_before(standing, weights):
        if each.prompt_id not in beside:
            own, others = (own + 1, others) if tenant == standing.job.tenant else (own, others + 1)
    return own, others


def _reasons(
    standing: Standing, candidates: Sequence[Candidate], before: tuple[int, int], foreseen: Foreseen | None
) -> list[str]:
    if standing.is_draining:
        return ["No job is given to any ComfyUI, until `comfygate jobs drain --off`."]
    found = []
    if standing.needs is None and len(candidates) > 1:
        found.append("What it needs was not recorded, so it waits for the first one.")
    if (own := sum(before)) > 0:
        found.append(f"{_jobs(own)} {'comes' if own == 1 else 'come'} before it, {before[0]} of its own tenant.")
    able = [each for each in candidates if each.is_able]
    if not able:
        return [*found, _nobody(candidates)]
    if COMFYUI_GONE in standing.job.attempts:
        found.append("ComfyUI went away while it ran: it goes where no other job is.")
    full = [each for each in able if not each.has_room]
    if len(full) == len(able):
        found.append(f"{_names(full)} {'has' if len(full) == 1 else 'have'} no room.")
    elif foreseen is not None and not foreseen.is_next:
        found.append(
            f"It is left to {foreseen.comfyui}, with which it has ended sooner than with those that have room."
        )
    elif foreseen is not None or not found:
        found.append(f"It is given to {foreseen.comfyui if foreseen else able[0].name} next, by a gate that runs.")
    return found


def _nobody(candidates: Sequence[Candidate]) -> str:
    drained = [each for each in candidates if each.is_drained and not each.lacks]
    away = [each for each in candidates if not each.is_there and not each.lacks and not each.is_drained]
    stuck = [each for each in candidates if each.is_stuck and not each.lacks and not each.is_drained]
    if not away and not drained and not stuck:
        return "No ComfyUI that there is has what it needs."
    found = [f"{_names(away)} {'does' if len(away) == 1 else 'do'} not answer."] if away else []
    found += [f"{_names(drained)} {'is' if len(drained) == 1 else 'are'} drained."] if drained else []
    found += (
        [
            f"{_names(stuck)} {'has' if len(stuck) == 1 else 'have'} jobs waiting and {'runs' if len(stuck) == 1 else 'run'} none."
        ]
        if stuck
        else []
    )
    return " ".join(found)


def in_words(why: Why, now_s: float) -> str:
    lines = [describe(why.standing.job, now_s)]
    lines += [f"{'why':<11}  {printable(reason)}" for reason in why.reasons]
    lines += [f"{each.name:<11}  {printable(_state_of(each))}" for each in why.candidates]
    return "\n".join(lines)


def _state_of(candidate: Candidate) -> str:
    return ("drained; " if candidate.is_drained else "") + ("stuck; " if candidate.is_stuck else "") + _has(candidate)


def _has(candidate: Candidate) -> str:
    if not candidate.is_there:
        return "does not answer" + (f"; has not {candidate.lacks}" if candidate.lacks else "")
    if candidate.lacks:
        return f"has not {candidate.lacks}"
    room = f"{candidate.jobs} of at most {_jobs(candidate.window)}"
    own = [what for what, is_so in (("models", candidate.has_models), ("files", candidate.has_files)) if is_so]
    return f"has {room}" + (f", and its {' and '.join(own)}" if own else "")


def to_json(why: Why) -> dict[str, Any]:
    return as_json(why.standing.job) | {
        "why": why.reasons,
        "before": None if why.before is None else {"own": why.before[0], "others": why.before[1]},
        "comfyuis": [
            {
                "name": each.name,
                "answers": each.is_there,
                "lacks": each.lacks or None,
                "jobs": each.jobs,
                "window": each.window,
                "has_models": each.has_models,
                "has_files": each.has_files,
                "drained": each.is_drained,
                "stuck": each.is_stuck,
            }
            for each in why.candidates
        ],
    }


def _names(candidates: Sequence[Candidate]) -> str:
    return " and ".join(each.name for each in candidates)


def _jobs(number: int) -> str:
    return f"{number} job" if number == 1 else f"{number} jobs"
