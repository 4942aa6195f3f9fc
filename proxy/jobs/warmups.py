"""Runs functions once at a ComfyUI that was restarted, so that the first who calls them does not wait until their models are loaded.

A warm-up is nobody's job: it is in no registry, no tenant sees it or what it makes, and it is in no limit. It comes behind every job, and where one is given to
its ComfyUI meanwhile it ends: what is loaded by then stays, and the job loads what it needs itself.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from policy.call import UpstreamCall
from policy.catalogue import Catalogue
from policy.functions.function import Function
from policy.rules.jobs import JSON_TYPE, json_call
from policy.rules.prompt import PROMPT, body_for
from policy.violation import Violation
from policy.warmup import PLACE, Warmup, folder_of, make_warmup
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.history import read_entry
from proxy.jobs.queue_reader import get_call
from proxy.jobs.registry import JobRegistry
from proxy.persistence.operations import DatabaseUnavailable
from proxy.tasks import Tasks
from proxy.upstream.client import Upstream

BEGIN_AFTER_S: Final = 2.0
"""By then jobs that wait have been given to the ComfyUI, if they are for it (proxy/jobs/dispatcher.py, LOOK_EACH_S)."""
LOOK_EACH_S: Final = 0.25
LIMIT_S: Final = 600.0
"""Of one function. Models of tens of gigabytes come from a network disk within minutes; what takes longer hangs."""
_ASK_LIMIT_S: Final = 30.0
DONE: Final = "done"
FAILED: Final = "failed"
STOPPED: Final = "stopped"

_log = logging.getLogger("comfygate")

KnowCatalogue = Callable[[str], Awaitable[Catalogue]]
"""Of the ComfyUI of a name. Raises UpstreamUnavailable, UpstreamTimeout."""

NoteModels = Callable[[str, Sequence[str]], Awaitable[None]]
"""That the ComfyUI of a name was given these last; none where it was restarted. Raises DatabaseUnavailable."""


class Warmups:
    """functions: that are to run at the ComfyUI of a name. output: its output folder, None where the gate does not see it. counted: told the name and the
    result of each."""

    def __init__(
        self,
        upstream: Upstream,
        registry: JobRegistry,
        note_models: NoteModels,
        functions: Callable[[str], Sequence[Function]],
        catalogue: KnowCatalogue,
        output: Callable[[str], Path | None],
        counted: Callable[[str, str], None],
    ) -> None:
        self._upstream = upstream
        self._registry = registry
        self._note_models = note_models
        self._functions = functions
        self._catalogue = catalogue
        self._output = output
        self._counted = counted
        self._tasks = Tasks()
        self._running: dict[str, asyncio.Task[None]] = {}

    async def stop(self) -> None:
        await self._tasks.stop()

    def start(self, comfyui: str) -> None:
        """It was restarted: what was begun there before is gone."""
        self.cancel(comfyui)
        functions = self._functions(comfyui)
        if functions or self._is_one_of_several:
            self._running[comfyui] = self._tasks.start(self._run(comfyui, functions), "warm-up")

    def cancel(self, comfyui: str) -> None:
        """Nobody waits for it any more."""
        if (before := self._running.pop(comfyui, None)) is not None:
            before.cancel()

    @property
    def _is_one_of_several(self) -> bool:
        """Only then it is known, and asked, which models each has."""
        return len(self._registry.comfyuis) > 1

    async def _run(self, comfyui: str, functions: Sequence[Function]) -> None:
        try:
            if self._is_one_of_several:
                await self._note_models(comfyui, ())
            if functions:
                await self._warm_all(comfyui, functions)
        except DatabaseUnavailable as error:
            _log.warning("what models %s has is not recorded: %s", comfyui, error)

    async def _warm_all(self, comfyui: str, functions: Sequence[Function]) -> None:
        """Raises DatabaseUnavailable."""
        await asyncio.sleep(BEGIN_AFTER_S)
        try:
            for function in functions:
                result = STOPPED if self._has_jobs(comfyui) else await self._warm(comfyui, function)
                self._counted(comfyui, result)
                if result == STOPPED:
                    _log.info("%s is not warmed with %s: its jobs load what they need", comfyui, function.name)
                    return
        except (UpstreamUnavailable, UpstreamTimeout) as error:
            self._counted(comfyui, FAILED)
            _log.warning("the warm-up of %s ends: it is away (%s)", comfyui, error)

    def _has_jobs(self, comfyui: str) -> bool:
        return bool(self._registry.given_to(comfyui))

    async def _warm(self, comfyui: str, function: Function) -> str:
        """The result, when what it saved is deleted. Raises UpstreamUnavailable, UpstreamTimeout, DatabaseUnavailable."""
        try:
            return await self._call(comfyui, function)
        finally:
            if (output := self._output(comfyui)) is not None:
                await asyncio.to_thread(shutil.rmtree, output / folder_of(comfyui), ignore_errors=True)

    async def _call(self, comfyui: str, function: Function) -> str:
        upstream, prompt_id = self._upstream.of(comfyui), str(uuid.uuid4())
        try:
            warmup = make_warmup(function, await self._catalogue(comfyui), folder_of(comfyui))
        except Violation as violation:
            return _failed(comfyui, function, f"{violation.message} {violation.details}")
        # SECURITY: no tenant can claim its id, and so see it.
        self._registry.mark_unowned(prompt_id)
        body = body_for(warmup.body, prompt_id, PLACE)
        reply = await upstream.ask(
            UpstreamCall("POST", PROMPT, body=body, content_type=JSON_TYPE), time_limit_s=_ASK_LIMIT_S
        )
        if reply.status != 200:
            return _failed(comfyui, function, f"ComfyUI refuses it with {reply.status}")
        return await self._follow(_Run(upstream, prompt_id), comfyui, function, warmup)

    async def _follow(self, run: _Run, comfyui: str, function: Function, warmup: Warmup) -> str:
        loop = asyncio.get_running_loop()
        began_s, is_stopped = loop.time(), False
        while await run.is_queued():
            is_late = loop.time() - began_s > LIMIT_S
            if not is_stopped and (is_late or self._has_jobs(comfyui)):
                is_stopped = True
                await run.stop()
            if is_late:
                return _failed(comfyui, function, f"it has not ended after {LIMIT_S:.0f} s")
            await asyncio.sleep(LOOK_EACH_S)
        if is_stopped:
            return STOPPED
        told = read_entry(await run.entry())
        if told is None or told.is_error:
            return _failed(comfyui, function, f"its job {run.prompt_id} failed: ComfyUI's log says why")
        if warmup.models and self._is_one_of_several:
            await self._note_models(comfyui, warmup.models)
        _log.info("%s is warm for %s after %.1f s", comfyui, function.name, loop.time() - began_s)
        return DONE


class _Run:
    """One that ComfyUI has taken. Raises UpstreamUnavailable, UpstreamTimeout."""

    def __init__(self, upstream: Upstream, prompt_id: str) -> None:
        self._upstream = upstream
        self.prompt_id = prompt_id

    async def is_queued(self) -> bool:
        """Whether it waits or runs."""
        reply = await self._upstream.ask(get_call("queue"), time_limit_s=_ASK_LIMIT_S)
        if reply.status != 200 or not isinstance(reply.value, dict):
            raise UpstreamUnavailable("ComfyUI does not tell its queue.")
        items = [*(reply.value.get("queue_running") or ()), *(reply.value.get("queue_pending") or ())]
        return any(isinstance(item, list) and self.prompt_id in item[1:2] for item in items)

    async def entry(self) -> Any:
        reply = await self._upstream.ask(get_call("history", self.prompt_id), time_limit_s=_ASK_LIMIT_S)
        return reply.value.get(self.prompt_id) if isinstance(reply.value, dict) else None

    async def stop(self) -> None:
        """ComfyUI stops no other job by this: it is asked for the one of this id."""
        calls = (
            json_call("POST", ("queue",), {"delete": [self.prompt_id]}),
            json_call("POST", ("interrupt",), {"prompt_id": self.prompt_id}),
        )
        for call in calls:
            await self._upstream.ask(call, time_limit_s=_ASK_LIMIT_S)


def _failed(comfyui: str, function: Function, why: str) -> str:
    _log.warning("the warm-up of %s with %s failed: %s", comfyui, function.name, why)
    return FAILED
