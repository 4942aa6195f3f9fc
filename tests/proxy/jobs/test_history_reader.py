"""Reading one entry of ComfyUI's history, whatever comes."""

from __future__ import annotations

from typing import Any

import pytest

from policy.call import UpstreamReply
from proxy.http.errors import ReplyTooLarge, UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.history_reader import MAX_TRIES, UNREADABLE, HistoryReader, HistoryUnreadable


class Comfy:
    """Answers what it is told to, or raises it."""

    def __init__(self, *answers: UpstreamReply | Exception) -> None:
        self.answers = list(answers)

    async def ask(self, call: Any, **_: Any) -> UpstreamReply:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def reader(*answers: UpstreamReply | Exception) -> HistoryReader:
    upstream: Any = Comfy(*answers)
    return HistoryReader(upstream)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (UpstreamReply(200, {"id": {"status": {}}}), {"status": {}}),
        (UpstreamReply(200, {}), None),
        (UpstreamReply(200, {"other": {}}), None),
        (ReplyTooLarge("too large"), UNREADABLE),
    ],
)
async def test_an_entry_is_read_or_there_is_none(answer: UpstreamReply | Exception, expected: Any) -> None:
    assert (await reader(answer).find("id")).entry == expected


@pytest.mark.parametrize("answer", [UpstreamReply(500, None), UpstreamReply(200, []), UpstreamTimeout()])
async def test_what_cannot_be_read_is_tried_again_and_then_given_up(
    answer: UpstreamReply | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    history = reader(*[answer] * MAX_TRIES, UpstreamReply(200, {"id": 1}))
    for _ in range(MAX_TRIES - 1):
        with pytest.raises(HistoryUnreadable):
            await history.find("id")
    assert (await history.find("id")).entry is UNREADABLE
    assert len(caplog.records) == 1
    assert (await history.find("id")).entry == 1


async def test_that_no_answer_came_says_nothing_of_an_entry_that_takes_too_long_once() -> None:
    """A job that has ended must not be lost because ComfyUI broke off twice, and was slow then."""
    history = reader(
        *[UpstreamUnavailable("gone")] * MAX_TRIES,
        *[UpstreamTimeout()] * (MAX_TRIES - 1),
        UpstreamReply(200, {"id": 1}),
    )
    for _ in range(2 * MAX_TRIES - 1):
        with pytest.raises(HistoryUnreadable):
            await history.find("id")
    assert (await history.find("id")).entry == 1


async def test_what_could_not_be_read_before_comfyui_went_away_says_nothing_of_an_entry() -> None:
    """A job must not be lost because ComfyUI broke off three times."""
    history = reader(*[UpstreamUnavailable("gone")] * 2 * (MAX_TRIES - 1), UpstreamReply(200, {"id": 1}))
    for _ in range(2):
        for _ in range(MAX_TRIES - 1):
            with pytest.raises(HistoryUnreadable):
                await history.find("id")
        history.connected()
    assert (await history.find("id")).entry == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (UpstreamReply(200, {"id": {}}), True),
        (UpstreamReply(200, {}), False),
        (UpstreamReply(404, None), False),
        (UpstreamReply(500, {"error": "x"}), False),
    ],
)
async def test_whether_there_is_an_entry(answer: UpstreamReply, expected: bool) -> None:
    assert await reader(answer).has("id") is expected
