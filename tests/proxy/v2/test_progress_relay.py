"""What one of several gates hears of a job, told to the others."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from policy.rules.events import PROGRESS, Event
from proxy.persistence.operations import DatabaseUnavailable
from proxy.v2 import progress_relay
from proxy.v2.progress_relay import MAX_EVENT, MAX_TEXT, MAX_WAITING, ProgressRelay

PROMPT = "6f1c1f4e-58c8-4f4b-9d9b-0d7c6f4c9a10"


class Wire:
    """From one gate to another. said: the texts; heard: what came out of them."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.heard: list[tuple[str, str, str]] = []
        self.is_away = False
        self.here = ProgressRelay(self._say, lambda prompt_id, event: None)
        self.there = ProgressRelay(self._say, self._hear)

    async def _say(self, text: str) -> None:
        if self.is_away:
            raise DatabaseUnavailable("gone")
        self.said.append(text)
        self.there.told(text)

    def _hear(self, prompt_id: str, event: Event) -> None:
        assert event.prompt_id == prompt_id
        if event.kind not in PROGRESS:
            assert event.data == orjson.loads(event.text)["data"]
        self.heard.append((prompt_id, event.kind, event.text))

    def hears(self, kind: str, **data: object) -> str:
        text = orjson.dumps({"type": kind, "data": {"prompt_id": PROMPT, **data}}).decode()
        self.here.heard(PROMPT, Event(text, kind, PROMPT, data))
        return text

    async def is_told(self) -> None:
        self.here._tell_soon()
        await self.here._tasks.finish()


@pytest.fixture
async def wire() -> Wire:
    return Wire()


async def test_events_come_in_their_order_and_of_progress_the_newest(wire: Wire) -> None:
    start = wire.hears("execution_start")
    wire.hears("progress_state", nodes={"3": {"value": 1}})
    last = wire.hears("progress_state", nodes={"3": {"value": 2}})
    executing = wire.hears("executing", node="3")
    await wire.is_told()
    assert [text for *_, text in wire.heard] == [start, last, executing]
    assert len(wire.said) == 1


async def test_they_are_told_by_the_clock(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_relay, "PACE_S", 0.0)
    wire.hears("execution_start")
    while not wire.heard:
        await asyncio.sleep(0)


async def test_what_is_much_is_told_in_parts_and_what_is_too_much_is_left_out(wire: Wire) -> None:
    texts = [wire.hears("executed", node=str(number), output={"text": [pseudo(number)]}) for number in range(20)]
    wire.hears("executed", node="large", output={"text": [pseudo(1, 40)]})
    wire.hears("executed", node="endless", output={"text": ["x" * MAX_EVENT]})
    wire.hears("execution_error", node="3")
    await wire.is_told()
    assert [text for *_, text in wire.heard] == texts
    assert len(wire.said) > 1
    assert all(len(text.encode()) <= MAX_TEXT for text in wire.said)


async def test_the_newest_are_told_where_there_are_too_many(wire: Wire) -> None:
    texts = [wire.hears("executing", node=str(number)) for number in range(MAX_WAITING + 3)]
    await wire.is_told()
    assert [text for *_, text in wire.heard] == texts[3:]


async def test_while_the_database_is_away_nobody_is_told(wire: Wire) -> None:
    wire.is_away = True
    wire.hears("execution_start")
    await wire.is_told()
    wire.is_away = False
    end = wire.hears("executing", node=None)
    await wire.is_told()
    assert [text for *_, text in wire.heard] == [end]


@pytest.mark.parametrize("text", ["", "no", "A" * 99, "é"])
async def test_what_no_gate_has_said_is_nothing(wire: Wire, text: str) -> None:
    wire.there.told(text)
    assert wire.heard == []


def pseudo(seed: int, times: int = 4) -> str:
    """Some 250 digits for each time, which cannot be packed well."""
    return "".join(str(pow(7919 + seed, 131 + number)) for number in range(0, times))
