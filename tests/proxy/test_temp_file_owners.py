"""Whose a temp file is by its own time: what ComfyUI says of file and job in every state of what the gate knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.principal import TenantId
from policy.rules.files import view_of
from proxy.http.errors import UpstreamUnavailable, UpstreamUnreachable
from proxy.jobs.job import OUT_OF_MEMORY, Job, JobState
from proxy.jobs.registry import JobRegistry
from proxy.jobs.temp_files import Made
from proxy.steps.temp_file_owners import NotItsOwn, TempFileOwners
from proxy.upstream.client import Upstream
from tests.proxy.upstreams import GUARD_S, serving

ALICE, BOB = TenantId("alice"), TenantId("bob")
NAME = UpstreamPath("ComfyUI_temp_abcde_00001_.png")
END_S = 1_000_000.0
BEFORE_S, AFTER_S = END_S - 1, END_S + 1
TRIED = ({"at": END_S - 5, "comfyui": "c", "ended": END_S, "reason": OUT_OF_MEMORY}, {"at": END_S, "comfyui": "c"})


def etag(written_s: float) -> str:
    return f'"{round(written_s * 1e9):x}-1a"'


def entry(number: float, ended_s: float | None = END_S) -> dict[str, Any]:
    messages = [] if ended_s is None else [["execution_success", {"timestamp": round(ended_s * 1000)}]]
    return {"prompt": [number, "id", {}, {}, []], "outputs": {}, "status": {"messages": messages}}


@dataclass
class Said:
    """What ComfyUI answers. file: status and ETag. history: status and entry. asked: what it was asked."""

    file: tuple[int, str] = (200, etag(BEFORE_S))
    history: tuple[int, Any] = (200, {})
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        if request.path == "/view":
            status, tag = self.file
            return web.Response(status=status, headers={"ETag": tag} if tag else {})
        status, value = self.history
        return web.json_response(value, status=status)


@dataclass
class House:
    registry: JobRegistry
    job: Job
    upstream: Upstream
    owners: TempFileOwners

    async def is_own(self) -> bool:
        return await self.owners.is_own(ALICE, NAME)

    @property
    def has_name(self) -> bool:
        return self.registry.of(ALICE).has_temp_file(NAME)


@asynccontextmanager
async def open_house(said: Said, **job: Any) -> AsyncIterator[House]:
    """With one job of alice's, which has made the file as far as the gate knows."""
    async with serving(said.answer) as url:
        registry, upstream = JobRegistry(), Upstream(url, GUARD_S)
        its = registry.claim(ALICE, None)
        registry.add_temp_files(its.prompt_id, [NAME], Made.NOW)
        for name, value in {"number": 5.0, "state": JobState.RUNNING, **job}.items():
            setattr(its, name, value)
        try:
            yield House(registry, its, upstream, TempFileOwners(upstream, registry))
        finally:
            await upstream.stop()


@pytest.mark.parametrize(
    ("tag", "is_own"),
    [
        (etag(BEFORE_S), True),
        (etag(AFTER_S), False),
        ("", False),
        ('"other"', False),
    ],
)
async def test_after_the_end_of_its_job_a_file_says_itself_of_when_it_is(tag: str, is_own: bool) -> None:
    said = Said((200, tag))
    async with open_house(said, state=JobState.ENDED, ended_at_s=END_S) as house:
        assert (await house.is_own(), house.has_name) == (is_own, is_own)
        assert said.asked == ["HEAD /view"]


async def test_a_file_that_is_gone_is_nobodys() -> None:
    async with open_house(Said((404, "")), state=JobState.ENDED, ended_at_s=END_S) as house:
        assert not await house.is_own()
        assert not house.has_name


async def test_a_job_whose_end_is_not_known_has_no_files() -> None:
    async with open_house(Said(), state=JobState.ENDED, ended_at_s=None) as house:
        assert not await house.is_own()


@pytest.mark.parametrize(
    ("written_s", "found", "is_own"),
    [
        (AFTER_S, None, True),
        (AFTER_S, entry(4.0), True),
        (BEFORE_S, entry(5.0), True),
        (AFTER_S, entry(5.0), False),
        (BEFORE_S, entry(5.0, None), False),
    ],
    ids=["it runs", "an earlier one ended", "it has just ended", "another one runs by now", "nobody says when"],
)
async def test_whether_a_job_still_runs_is_asked_of_the_history(
    written_s: float, found: dict[str, Any] | None, is_own: bool
) -> None:
    said = Said((200, etag(written_s)))
    async with open_house(said) as house:
        said.history = (200, {} if found is None else {house.job.prompt_id: found})
        assert (await house.is_own(), house.has_name) == (is_own, is_own)


@pytest.mark.parametrize(
    ("state", "written_s", "found", "is_own"),
    [
        (JobState.WAITING, BEFORE_S, entry(4.0), True),
        (JobState.DISPATCHED, AFTER_S, entry(4.0), False),
        (JobState.WAITING, BEFORE_S, None, False),
        (JobState.RUNNING, AFTER_S, entry(4.0), True),
    ],
)
async def test_between_two_tries_of_a_job_others_run(
    state: JobState, written_s: float, found: dict[str, Any] | None, is_own: bool
) -> None:
    said = Said((200, etag(written_s)))
    async with open_house(said, state=state, attempts=TRIED) as house:
        said.history = (200, {} if found is None else {house.job.prompt_id: found})
        assert await house.is_own() == is_own


async def test_of_a_run_that_may_be_lost_nothing_is_shown_until_that_is_known() -> None:
    """ComfyUI was restarted, and has run a neighbour's job since, of which another gate knows."""
    async with open_house(Said((200, etag(AFTER_S)))) as house:
        connections, job = house.registry.connections, house.job
        for _ in range(2):
            connections.made(job.comfyui)
            job.seen_in = connections.to(job.comfyui)
            assert await house.is_own()
            connections.over(job.comfyui)
            with pytest.raises(UpstreamUnreachable):
                await house.is_own()
            connections.made(job.comfyui)
            with pytest.raises(UpstreamUnreachable):
                await house.is_own()
            assert house.has_name, "it may be its own"


@pytest.mark.parametrize("said", [Said((500, "")), Said(history=(500, {})), Said(history=(200, []))])
async def test_what_comfyui_does_not_say_is_not_guessed(said: Said) -> None:
    async with open_house(said) as house:
        with pytest.raises(UpstreamUnavailable):
            await house.is_own()
        assert house.has_name


async def test_a_name_that_another_has_by_now_is_not_taken_from_him() -> None:
    async with open_house(Said(), state=JobState.ENDED, ended_at_s=END_S) as house:
        bobs = house.registry.claim(BOB, None)
        house.registry.add_temp_files(bobs.prompt_id, [NAME], Made.NOW)
        assert not await house.is_own()
        assert house.registry.of(BOB).has_temp_file(NAME)


async def test_an_answer_is_looked_at_where_it_shows_the_file() -> None:
    said = Said((200, etag(AFTER_S)))
    async with open_house(said, state=JobState.ENDED, ended_at_s=END_S) as house:
        call = view_of("GET", Folder.TEMP, NAME)
        async with await house.upstream.open(call, time_limit_s=GUARD_S) as answer:
            with pytest.raises(NotItsOwn):
                await house.owners.check(ALICE, NAME, answer)
        assert said.asked == ["GET /view"], "it says itself of when the file is"
        said.file = (404, "")
        async with await house.upstream.open(call, time_limit_s=GUARD_S) as answer:
            await house.owners.check(ALICE, NAME, answer)


async def test_of_several_files_all_are_looked_at() -> None:
    async with open_house(Said((200, etag(AFTER_S))), state=JobState.ENDED, ended_at_s=END_S) as house:
        other = UpstreamPath("other.png")
        assert await house.owners.are_own(ALICE, ())
        assert not await house.owners.are_own(ALICE, (other, NAME))
        assert not house.has_name
