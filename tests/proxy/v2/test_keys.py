"""`Idempotency-Key` of the API: good for one submission, given back by what certainly came to nothing, and by nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from standin import StandIn
from tests.contract.driver import node, saving, slow, unique
from tests.harness import Running, running_gate
from tests.proxy.relay import Loses, Relay
from tests.proxy.upstreams import with_time_limit
from tests.proxy.v2.asking import JOBS, ask, audited, listed, submit, submitted, until
from tests.proxy.v2.restarting import restarted

USED = (422, "idempotency_key_reuse")


@dataclass
class Standing:
    gate: Running
    relay: Relay


@asynccontextmanager
async def standing(folder: Path, comfy: StandIn) -> AsyncIterator[Standing]:
    async with Relay(comfy.url).run() as relay, running_gate(folder, relay.url) as gate:
        yield Standing(gate, relay)


@asynccontextmanager
async def with_limit(gate: Running, old: str, new: str) -> AsyncIterator[None]:
    """The configuration with another limit, and as it was afterwards."""
    text = gate.config_file.read_text(encoding="utf-8")
    assert old in text
    for each in (text.replace(old, new), text):
        gate.config_file.write_text(each, encoding="utf-8")
        assert await gate.gate.reload(gate.config_file)
        if each is not text:
            yield


async def test_a_key_is_good_once(gate: Running) -> None:
    """Also with the same body, when the first one has ended, and under another spelling of the key."""
    key, graph = unique("key"), saving(unique())
    first = await submit(gate, graph, key=key)
    assert first.status == 201
    for again in (key, f'"{key}"'):
        answer = await submit(gate, graph, key=again)
        assert answer.refusal == USED
        assert "Idempotency-Replayed" not in answer.headers
    await until(gate, first.body["id"], "succeeded")
    assert (await submit(gate, saving(unique()), key=key)).refusal == USED
    assert await listed(gate) == [first.body["id"]]
    assert [entry["idempotency"] for entry in audited(gate)] == ["first", "reused", "reused", "reused"]


async def test_of_many_at_once_one_is_taken(gate: Running) -> None:
    key = unique("key")
    answers = await asyncio.gather(*(submit(gate, saving(unique()), key=key) for _ in range(20)))
    assert Counter(answer.status for answer in answers) == {201: 1, 422: 19}
    assert {answer.code for answer in answers if answer.status == 422} == {USED[1]}
    assert len(await listed(gate)) == 1


async def test_a_neighbours_key_is_another_one(gate: Running) -> None:
    """SECURITY: nobody learns which keys a neighbour uses, nor spends them."""
    key = unique("key")
    for who in ("alice", "mallory"):
        assert (await submit(gate, saving(unique()), who, key)).status == 201
    for who in ("alice", "mallory"):
        assert (await submit(gate, saving(unique()), who, key)).refusal == USED


async def test_a_key_of_the_native_door_is_another_one(gate: Running) -> None:
    key, graph = unique("key"), saving(unique())
    assert (await submit(gate, graph, key=key)).status == 201
    for _ in range(2):
        headers = {"Idempotency-Key": key}
        assert await gate.status("POST", "/prompt", "alice", json={"prompt": graph}, headers=headers) == 200
    assert len(await listed(gate)) == 2


async def test_a_key_is_used_after_a_restart_of_the_gate_too(gate: Running) -> None:
    key = unique("key")
    first = await submitted(gate, saving(unique()), key=key)
    async with restarted(gate):
        assert (await submit(gate, saving(unique()), key=key)).refusal == USED
        assert await listed(gate) == [first]


REFUSED: dict[str, tuple[Any, dict[str, Any], tuple[int, str]]] = {
    "policy": ({"1": node("NotAllowed")}, {}, (403, "forbidden")),
    "empty": ({}, {}, (422, "invalid_workflow")),
    "ui": ({"nodes": [], "links": [], "last_node_id": 1, "version": 0.4}, {}, (422, "workflow_format_ui")),
    "comfyui": ({"1": node("SaveImage", filename_prefix="x")}, {}, (422, "invalid_workflow")),
    "labels": (saving("x"), {"metadata": {"a": 1}}, (422, "metadata_invalid")),
    "asset": (
        {"1": node("LoadImage", image={"__type": "core/ASSET", "info": {"id": "x"}})},
        {},
        (422, "missing_asset"),
    ),
    "reserved": (saving("x"), {"inputs": {}}, (422, "invalid_workflow")),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_refusal_gives_the_key_back(gate: Running, kind: str) -> None:
    key = unique("key")
    graph, more, refusal = REFUSED[kind]
    for _ in range(2):
        assert (await submit(gate, graph, key=key, **more)).refusal == refusal
    assert (await submit(gate, saving(unique()), key=key)).status == 201
    assert (await submit(gate, saving(unique()), key=key)).refusal == USED


async def test_a_limit_gives_the_key_back(gate: Running) -> None:
    """The SDKs wait as they are told, and send the same key again."""
    key = unique("key")
    running = await submitted(gate, slow())
    async with with_limit(gate, "queued_jobs = 1000", "queued_jobs = 1"):
        answer = await submit(gate, saving(unique()), key=key)
        assert answer.refusal == (429, "queue_full")
        assert int(answer.headers["Retry-After"]) >= 1
    assert (await submit(gate, saving(unique()), key=key)).status == 201
    assert len(await listed(gate)) == 2
    assert running in await listed(gate)


async def test_a_rate_gives_the_key_back(gate: Running) -> None:
    key = unique("key")
    async with with_limit(gate, 'prompts = "100000/minute"', 'prompts = "1/hour"'):
        await submitted(gate, saving(unique()))
        answer = await submit(gate, saving(unique()), key=key)
        assert answer.refusal == (429, "rate_limited")
        assert int(answer.headers["Retry-After"]) >= 1
    assert (await submit(gate, saving(unique()), key=key)).status == 201


async def test_a_comfyui_that_was_sent_nothing_gives_the_key_back(gate: Running, comfy: StandIn) -> None:
    key = unique("key")
    await comfy.stop()
    for _ in range(2):
        assert (await submit(gate, saving(unique()), key=key)).refusal == (503, "upstream_error")
    await comfy.start(port=comfy.port)
    await gate.gate.dependencies.queue_watchers.first.is_settled.wait()
    assert (await submit(gate, saving(unique()), key=key)).status == 201


@pytest.mark.parametrize("loses", [Loses.SUBMISSION, Loses.ANSWER])
async def test_whatever_may_have_come_of_it_keeps_the_key(tmp_path: Path, comfy: StandIn, loses: Loses) -> None:
    key = unique("key")
    async with standing(tmp_path, comfy) as here:
        here.relay.loses = loses
        answer = await submit(here.gate, saving(unique()), key=key)
        assert answer.refusal == (503, "upstream_error")
        here.relay.loses = Loses.NOTHING
        assert (await submit(here.gate, saving(unique()), key=key)).refusal == USED
        assert here.relay.submissions == 1


async def test_a_time_that_ran_out_keeps_the_key(
    tmp_path: Path, comfy: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_time_limit(monkeypatch, 1.0)
    key = unique("key")
    async with standing(tmp_path, comfy) as here:
        here.relay.loses, here.relay.hangs_up = Loses.SUBMISSION, False
        answer = await submit(here.gate, saving(unique()), key=key)
        assert answer.refusal == (504, "upstream_error")
        here.relay.loses = Loses.NOTHING
        assert (await submit(here.gate, saving(unique()), key=key)).refusal == USED


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "a\tb", '"a'])
async def test_what_is_no_key_is_refused(gate: Running, key: str) -> None:
    assert (await submit(gate, saving(unique()), key=key)).refusal == (400, "invalid_request")
    assert await listed(gate) == []


async def test_a_key_means_nothing_where_nothing_is_submitted(gate: Running) -> None:
    job_id = await submitted(gate, saving(unique()))
    for _ in range(2):
        for method, path in (("GET", JOBS), ("GET", f"{JOBS}/{job_id}"), ("POST", f"{JOBS}/{job_id}/cancel")):
            assert (await ask(gate, method, path, headers={"Idempotency-Key": "one"})).status == 200
