"""What concerns jobs of several ComfyUIs."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from policy.call import UpstreamCall
from policy.rules.jobs import json_call
from proxy.http.errors import UpstreamUnavailable
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
