"""Results that a strict parser refuses, or that are too large: they hide no other tenant's jobs, and no job becomes free by them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from policy.call import UpstreamCall, UpstreamReply
from policy.document import read_upstream_json
from proxy.http.errors import ReplyTooLarge
from proxy.jobs import history_reader
from proxy.jobs.registry import Outcome
from proxy.persistence.operations import Operation, Statement
from proxy.upstream.client import MAX_REPLY_BYTES, Upstream
from standin import StandIn
from tests.harness import Running, running_gate
from tests.proxy.jobs.following import ALICE, MALLORY, following

IDS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(20)]
PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 1}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
HOSTILE = ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, '"\\ud800"']


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": NaN, "b": 1}', {"a": None, "b": 1}),
        ('{"a": -Infinity}', {"a": None}),
        ('{"a": 1e999}', {"a": None}),
        ('{"a": 1' + "0" * 400 + "}", {"a": None}),
        ('{"a": NaN, "b": 123456789012345678901}', {"a": None, "b": 123456789012345678901.0}),
        ('{"a": "x\\ud800y"}', {"a": "x?y"}),
        ('{"a": "\\ud83d\\ude00", "b": NaN}', {"a": "\U0001f600", "b": None}),
        ('{"a": 0.5, "b": NaN}', {"a": 0.5, "b": None}),
        ("[" * 100_000, None),
        ("oops", None),
        ("", None),
    ],
)
def test_what_python_writes_is_read(text: str, value: Any) -> None:
    assert read_upstream_json(text) == value
    assert read_upstream_json(text.encode()) == value


def test_bytes_that_are_no_text_are_no_json() -> None:
    assert read_upstream_json(b'{"a": "\xff"}') is None


@pytest.mark.parametrize("literal", HOSTILE)
async def test_one_job_hides_no_other_from_a_gate_that_reads_anew(
    tmp_path: Path, gate: Running, comfy: StandIn, literal: str
) -> None:
    """As after its database was lost: what the gate knows of jobs is what ComfyUI still has."""
    ids = {who: await run_picture(gate, who) for who in ("alice", "mallory")}
    history = comfy._engine.life.queue.history  # type: ignore[union-attr]
    history[ids["mallory"]]["outputs"]["1"] = {"boxes": [_hostile(literal)]}
    (folder := tmp_path / "anew").mkdir()
    async with running_gate(folder, comfy.url) as anew:
        for who, prompt_id in ids.items():
            assert list(await anew.json("GET", "/history", who)) == [prompt_id]
            assert [row["id"] for row in (await anew.json("GET", "/api/jobs", who))["jobs"]] == [prompt_id]


async def run_picture(gate: Running, who: str) -> str:
    reply = await gate.json("POST", "/prompt", who, json={"prompt": PICTURE})
    prompt_id: str = reply["prompt_id"]
    while prompt_id not in await gate.json("GET", f"/history/{prompt_id}", who):
        pass
    return prompt_id


def _hostile(literal: str) -> Any:
    return json.loads(literal) if literal[0] != "-" else -math.inf


class History(Upstream):
    """A ComfyUI with these entries: None is one that it cannot write (500), "huge" one that is too large beside others."""

    def __init__(self, entries: dict[str, Any]) -> None:
        super().__init__("http://127.0.0.1:1", 1.0)
        self.entries = entries
        self.calls = 0

    async def ask(self, call: UpstreamCall, *, time_limit_s: float, max_bytes: int = MAX_REPLY_BYTES) -> UpstreamReply:
        self.calls += 1
        query = dict(call.query)
        if call.segments == ("history",):
            start = int(query["offset"])
            page = dict(list(self.entries.items())[start : start + int(query["max_items"])])
            return self._page(page, max_bytes)
        if call.segments[0] == "history":
            wanted = str(call.segments[1])
            return self._page({wanted: self.entries[wanted]} if wanted in self.entries else {}, max_bytes)
        if call.segments == ("api", "jobs"):
            return UpstreamReply(200, {"jobs": []})
        raise AssertionError(call)

    def _page(self, page: dict[str, Any], max_bytes: int) -> UpstreamReply:
        if None in page.values():
            return UpstreamReply(500, None)
        if "huge" in page.values() and max_bytes < MAX_REPLY_BYTES:
            raise ReplyTooLarge
        return UpstreamReply(200, {key: entry_of("alice") if value == "huge" else value for key, value in page.items()})


def entry_of(tenant: str, number: float = 1) -> dict[str, Any]:
    return {"prompt": [number, "id", {}, {"client_id": f"{tenant}.x"}, []], "outputs": {}, "status": {}}


async def test_pages_are_made_smaller_until_all_that_can_be_read_is_read() -> None:
    entries: dict[str, Any] = {prompt_id: entry_of("alice") for prompt_id in IDS}
    entries |= {IDS[3]: None, IDS[11]: "huge"}
    async with following(History(entries)) as parts:
        await parts.watcher.rebuild()
        assert parts.registry.of(ALICE).finished() == [prompt_id for prompt_id in IDS if prompt_id != IDS[3]]


async def test_what_cannot_be_read_is_not_taken_for_a_restart() -> None:
    """What is taken for a restart makes the previews of all that ended nobody's."""
    upstream = History({prompt_id: entry_of("alice") for prompt_id in IDS})
    upstream.entries[IDS[0]]["outputs"] = {"1": {"images": [{"filename": "a.png", "subfolder": "", "type": "temp"}]}}
    async with following(upstream) as parts:
        own = parts.registry.of(ALICE)
        await parts.watcher.rebuild()
        assert own.has_temp_file("a.png")
        upstream.entries = dict.fromkeys(IDS)
        await parts.watcher.rebuild()
        assert (own.finished(), own.has_temp_file("a.png")) == (IDS, True)
        upstream.entries = {}
        await parts.watcher.rebuild()
        assert (own.finished(), own.has_temp_file("a.png")) == (IDS, False), "the gate's own history stays"


async def test_a_history_that_is_never_readable_does_not_keep_the_gate_from_its_start() -> None:
    upstream = History({f"{number}": None for number in range(10_000)})
    async with following(upstream) as parts:
        await parts.watcher.rebuild()
    assert upstream.calls < 2 * history_reader._MAX_UNREADABLE


async def test_a_job_that_cannot_be_read_keeps_no_other_from_its_end() -> None:
    upstream = History({})
    async with following(upstream) as parts:
        parts.window = len(IDS)
        jobs = {prompt_id: await parts.running(prompt_id=prompt_id) for prompt_id in IDS}
        upstream.entries = {prompt_id: entry_of("alice", job.number) for prompt_id, job in jobs.items()}

        async def too_large(call: UpstreamCall, **_: Any) -> UpstreamReply:
            if call.segments[-1] == IDS[5]:
                raise ReplyTooLarge
            return await History.ask(upstream, call, time_limit_s=1)

        upstream.ask = too_large  # type: ignore[method-assign]
        parts.told.clear()
        await parts.watcher.sync()
        assert sorted(parts.told) == [("ended", prompt_id) for prompt_id in IDS]
        assert parts.registry.active() == []


@pytest.mark.parametrize("is_unreadable", [True, False], ids=["its entry cannot be read", "its entry was deleted"])
async def test_a_job_whose_entry_is_gone_has_used_the_gpu(is_unreadable: bool) -> None:
    upstream = History({})
    async with following(upstream) as parts:
        job = await parts.running(MALLORY)
        before = await parts.database.read(tag_of, MALLORY)
        parts.now_s += 37.0

        async def too_large(call: UpstreamCall, **_: Any) -> UpstreamReply:
            if is_unreadable and call.segments[0] == "history":
                raise ReplyTooLarge
            return await History.ask(upstream, call, time_limit_s=1)

        upstream.ask = too_large  # type: ignore[method-assign]
        await parts.watcher.sync()
        assert (job.outcome, job.gpu_s) == (Outcome.LOST, 37.0)
        assert (await parts.stored(job.prompt_id)).gpu_s == 37.0
        after = await parts.database.read(tag_of, MALLORY)
        assert after - before == 27.0, "the fair order charges for it: 10 s were paid before"


async def test_a_job_that_never_began_costs_nothing() -> None:
    async with following(History({})) as parts:
        job = await parts.taken(MALLORY)
        parts.now_s += 37.0
        await parts.watcher.sync()
        assert (job.outcome, job.gpu_s) == (Outcome.LOST, 0.0)
        assert await parts.database.read(tag_of, MALLORY) == 0.0


def tag_of(tenant: str) -> Operation[float]:
    rows = yield Statement("SELECT finish_tag FROM fair_tags WHERE tenant = ?", (tenant,))
    return float(rows[0][0])
