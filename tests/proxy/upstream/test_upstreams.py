"""What concerns jobs of several ComfyUIs."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from policy.call import Opaque, UpstreamCall
from policy.rules.jobs import json_call
from proxy.http.errors import UpstreamUnavailable, UpstreamUnreachable
from proxy.upstream.client import Upstream
from proxy.upstream.upstreams import Upstreams
from tests.proxy.upstreams import GUARD_S, Answer, serving

PLACES = {"a": "", "b": "one", "c": "two", "d": "one"}


def choose(call: UpstreamCall) -> str:
    return PLACES[call.jobs[0]]


@pytest.mark.parametrize(
    ("statuses", "jobs", "asked", "status"),
    [
        ([200, 200, 200], "abcd", ["first", "one", "two"], 200),
        ([200, 200, 200], "bd", ["one"], 200),
        ([200, 400, 200], "abc", ["first", "one", "two"], 400),
        ([200, 200, 200], "c", ["two"], 200),
        ([200, None, 200], "abc", ["first", "two"], None),
        ([None, 200, 200], "abc", ["one", "two"], None),
    ],
)
async def test_each_that_has_one_of_the_jobs_is_asked_whatever_the_others_say(
    statuses: list[int | None], jobs: str, asked: list[str], status: int | None
) -> None:
    found: list[str] = []

    def answering(name: str, answer: int) -> Answer:
        async def answer_it(request: web.BaseRequest) -> web.Response:
            found.append(name)
            return web.json_response({}, status=answer)

        return answer_it

    async with AsyncExitStack() as stack:
        urls = [
            "http://127.0.0.1:1" if each is None else await stack.enter_async_context(serving(answering(name, each)))
            for name, each in zip(("first", "one", "two"), statuses, strict=True)
        ]
        others = {name: Upstream(url, GUARD_S) for name, url in zip(("one", "two"), urls[1:], strict=True)}
        both = Upstreams(urls[0], GUARD_S, others, choose)
        stack.push_async_callback(both.stop)
        call = json_call("POST", ("queue",), {"delete": list(jobs)}, jobs)
        if status is None:
            with pytest.raises(UpstreamUnavailable):
                await both.ask(call, time_limit_s=GUARD_S)
        else:
            assert (await both.ask(call, time_limit_s=GUARD_S)).status == status
    assert found == asked


@pytest.mark.parametrize(("status", "absent"), [(200, "gpu-9"), (404, ""), (404, "gpu-9")])
async def test_what_one_made_that_has_gone_is_the_firsts_to_give_or_nobodys(status: int, absent: str) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(status=status)

    async with serving(answer) as url:
        several = Upstreams(url, GUARD_S, {}, lambda call: absent)
        several.absent_maker = lambda call: absent
        call = UpstreamCall("GET", (Opaque("view"),))
        if status == 404 and absent:
            with pytest.raises(UpstreamUnavailable, match="gpu-9, is not among the gate's any more") as told:
                await several.open(call, time_limit_s=GUARD_S)
            assert told.value.status == 503
            assert not isinstance(told.value, UpstreamUnreachable), "a job that reads it would wait for it for ever"
        else:
            async with await several.open(call, time_limit_s=GUARD_S) as stream:
                assert stream.status == status
                assert several.is_busy
                await stream.body(100)
        assert not several.is_busy
        await several.stop()
