"""Results that a strict parser refuses, or that are too large: they hide no other tenant's jobs, and no job becomes free by them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from policy.call import UpstreamCall, UpstreamReply
from policy.document import read_upstream_json
from policy.fairness import FairQueue
from policy.principal import TenantId
from proxy.http.errors import ReplyTooLarge
from proxy.jobs import history_reader
from proxy.jobs.admission import JobAdmission
from proxy.jobs.queue_watcher import QueueWatcher
from proxy.jobs.registry import JobRegistry, JobState, Outcome
from proxy.upstream.client import MAX_REPLY_BYTES, Upstream
from standin import StandIn
from tests.harness import Running

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
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
async def test_one_job_hides_no_other_from_a_gate_that_reads_anew(gate: Running, comfy: StandIn, literal: str) -> None:
    ids = {who: await run_picture(gate, who) for who in ("alice", "mallory")}
    history = comfy._engine.life.queue.history  # type: ignore[union-attr]
    history[ids["mallory"]]["outputs"]["1"] = {"boxes": [_hostile(literal)]}
    await gate.gate.dependencies.queue_watcher.rebuild()
    for who, prompt_id in ids.items():
        assert list(await gate.json("GET", "/history", who)) == [prompt_id]
        assert [row["id"] for row in (await gate.json("GET", "/api/jobs", who))["jobs"]] == [prompt_id]


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


def entry_of(tenant: str) -> dict[str, Any]:
    return {"prompt": [1, "id", {}, {"client_id": f"{tenant}.x"}, []], "outputs": {}, "status": {}}


async def test_pages_are_made_smaller_until_all_that_can_be_read_is_read() -> None:
    entries: dict[str, Any] = {prompt_id: entry_of("alice") for prompt_id in IDS}
    entries |= {IDS[3]: None, IDS[11]: "huge"}
    registry = JobRegistry()
    queue_watcher = QueueWatcher(History(entries), registry)
    await queue_watcher.rebuild()
    assert list(registry.of(ALICE).finished()) == [prompt_id for prompt_id in IDS if prompt_id != IDS[3]]


async def test_what_cannot_be_read_is_not_taken_for_a_restart() -> None:
    registry = JobRegistry()
    upstream = History({prompt_id: entry_of("alice") for prompt_id in IDS})
    queue_watcher = QueueWatcher(upstream, registry)
    await queue_watcher.rebuild()
    upstream.entries = dict.fromkeys(IDS)
    await queue_watcher.rebuild()
    assert list(registry.of(ALICE).finished()) == IDS
    upstream.entries = {}
    await queue_watcher.rebuild()
    assert not registry.of(ALICE).finished()


async def test_a_history_that_is_never_readable_does_not_keep_the_gate_from_its_start() -> None:
    upstream = History({f"{number}": None for number in range(10_000)})
    await QueueWatcher(upstream, JobRegistry()).rebuild()
    assert upstream.calls < 2 * history_reader._MAX_UNREADABLE


async def test_a_job_that_cannot_be_read_keeps_no_other_from_its_end() -> None:
    registry = JobRegistry()
    for prompt_id in IDS:
        registry.start(registry.adopt(prompt_id, "alice.x", JobState.PENDING))  # type: ignore[arg-type]
    upstream = History({prompt_id: entry_of("alice") for prompt_id in IDS})
    ended: list[str] = []
    queue_watcher = QueueWatcher(upstream, registry, on_ended=lambda job: ended.append(job.prompt_id))

    async def too_large(call: UpstreamCall, **_: Any) -> UpstreamReply:
        if call.segments[-1] == IDS[5]:
            raise ReplyTooLarge
        return await History.ask(upstream, call, time_limit_s=1)

    upstream.ask = too_large  # type: ignore[method-assign]
    await queue_watcher.sync()
    assert sorted(ended) == IDS


@pytest.mark.parametrize(("was_watched", "gpu_s"), [(True, 7.0), (False, 0.0)])
def test_a_job_whose_entry_is_gone_has_used_the_gpu(was_watched: bool, gpu_s: float) -> None:
    clock = iter([100.0, 107.0])
    registry = JobRegistry(lambda: next(clock))
    job = registry.claim(MALLORY, IDS[0])
    registry.start(job, 100.0)
    assert registry.end(job, None, was_watched=was_watched)
    assert (job.outcome, job.gpu_s) == (Outcome.LOST, gpu_s)


def test_a_job_that_never_began_costs_nothing() -> None:
    registry = JobRegistry()
    job = registry.claim(MALLORY, IDS[0])
    registry.end(job, None, was_watched=True)
    assert job.gpu_s == 0


async def test_the_fair_queue_charges_for_it() -> None:
    registry = JobRegistry()
    charged: list[tuple[str, float | None]] = []

    class Fair(FairQueue):
        def finish(self, prompt_id: str, gpu_s: float | None = None, *, is_complete: bool = True) -> None:
            charged.append((prompt_id, gpu_s))

    class Quiet:
        def free_job(self, prompt_id: str) -> None: ...

        async def add(self, *_: Any) -> None: ...

    admission = JobAdmission(registry, Quiet(), Quiet(), {})  # type: ignore[arg-type]
    admission._fair = Fair({})
    job = registry.claim(MALLORY, IDS[0])
    registry.start(job, job.claimed_at_s - 5)
    registry.end(job, None, was_watched=True)
    admission.ended(job)
    await admission.stop()
    assert [prompt_id for prompt_id, _ in charged] == [IDS[0]]
