"""A submission with an Idempotency-Key runs once, whatever breaks: the answer, the gate, ComfyUI. Before a real ComfyUI too where there is one."""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from proxy.app import Gate
from proxy.config import load_config
from proxy.jobs import idempotency
from proxy.observability.access_log import RequestLog
from proxy.persistence.operations import Operation, Statement
from standin import StandIn
from tests.commands.served import served
from tests.contract.conftest import REAL_URL, TARGETS
from tests.contract.driver import node, saving, unique
from tests.harness import AUDIT_FILE, Running, running_gate, write_config
from tests.proxy.relay import Loses, Relay
from tests.proxy.upstreams import GUARD_S


@dataclass
class Answer:
    status: int
    body: bytes
    headers: Any

    @property
    def type(self) -> str:
        error: str = self.json()["error"]["type"]
        return error

    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Standing:
    """A gate, a relay behind it, and ComfyUI behind that."""

    gate: Running
    relay: Relay
    comfy_url: str
    folder: Path

    async def submit(
        self, graph: Any, key: str | None, who: str = "alice", path: str = "/prompt", **more: Any
    ) -> Answer:
        return await sent(self.gate.session, self.gate.url, self.gate.headers(who), graph, key, path, **more)

    async def count(self, prefix: str) -> int:
        """How many jobs of this name ComfyUI has or had, once none of them waits or runs."""
        return await jobs_of(self.gate.session, self.comfy_url, prefix)

    def audit(self, name: str = "idempotency") -> list[Any]:
        """This field of each submission."""
        lines = (self.gate.config_file.parent / AUDIT_FILE).read_bytes().splitlines()
        return [entry.get(name) for entry in map(orjson.loads, lines) if entry["event"] == "submission"]

    @asynccontextmanager
    async def restarted(self) -> AsyncIterator[None]:
        """Another gate in the place of this one, from the same file."""
        await self.gate.gate.stop()
        gate = Gate(load_config(self.gate.config_file, {}), RequestLog(io.BytesIO(), "json"))
        await gate.start()
        await gate.dependencies.queue_watchers.first.is_settled.wait()
        self.gate.url = gate.public.url
        try:
            yield
        finally:
            await gate.stop()


async def sent(
    session: aiohttp.ClientSession,
    url: str,
    headers: dict[str, str],
    graph: Any,
    key: str | None,
    path: str = "/prompt",
    **more: Any,
) -> Answer:
    fields = headers if key is None else {**headers, "Idempotency-Key": key}
    async with session.post(url + path, json={"prompt": graph, **more}, headers=fields) as answer:
        return Answer(answer.status, await answer.read(), answer.headers)


async def jobs_of(session: aiohttp.ClientSession, comfy_url: str, prefix: str) -> int:
    async with asyncio.timeout(GUARD_S):
        while True:
            async with session.get(f"{comfy_url}/queue") as answer:
                if prefix not in await answer.text():
                    break
    async with session.get(f"{comfy_url}/history") as answer:
        entries = (await answer.json()).values()
    return sum(prefix in json.dumps(entry["prompt"]) for entry in entries)


@pytest.fixture(params=TARGETS)
async def comfy_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "real":
        yield REAL_URL
        return
    comfy = StandIn(tmp_path / "comfyui", frontend=False)
    await comfy.start()
    yield comfy.url
    await comfy.stop()


@pytest.fixture
async def standing(comfy_url: str, tmp_path: Path) -> AsyncIterator[Standing]:
    async with Relay(comfy_url).run() as relay, running_gate(tmp_path, relay.url) as gate:
        yield Standing(gate, relay, comfy_url, tmp_path)


def same(one: Answer, other: Answer) -> bool:
    return (one.status, one.body) == (other.status, other.body)


async def test_a_repeat_gets_the_first_answer_and_no_second_job(standing: Standing) -> None:
    prefix, key = unique("once"), str(uuid.uuid4())
    first = await standing.submit(saving(prefix), f'"{key}"', client_id="tab")
    assert first.status == 200, first.body
    assert "Idempotency-Replayed" not in first.headers
    for path in ("/prompt", "/api/prompt"):
        again = await standing.submit(saving(prefix), key, path=path, client_id="tab")
        assert same(again, first)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.headers["Content-Type"] == first.headers["Content-Type"]
    assert await standing.count(prefix) == 1
    assert standing.relay.submissions == 1
    assert standing.audit() == ["first", "replayed", "replayed"]
    async with standing.gate.session.get(f"{standing.gate.ops_url}/metrics") as metrics:
        text = await metrics.text()
    assert 'comfygate_idempotent_submissions_total{outcome="replayed"} 2.0' in text


async def test_without_a_key_every_submission_is_a_job(standing: Standing) -> None:
    prefix = unique("twice")
    answers = [await standing.submit(saving(prefix), None) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].json()["prompt_id"] != answers[1].json()["prompt_id"]
    assert standing.audit() == [None, None]


async def test_a_key_is_of_one_request(standing: Standing) -> None:
    prefix, key = unique("other"), unique("key")
    assert (await standing.submit(saving(prefix), key, client_id="tab")).status == 200
    for graph, client_id in ((saving(prefix, 7), "tab"), (saving(prefix), "other-tab")):
        other = await standing.submit(graph, key, client_id=client_id)
        assert (other.status, other.type) == (422, "idempotency_key_reused")
    assert await standing.count(prefix) == 1
    assert standing.audit() == ["first", "reused", "reused"]


async def test_a_repeat_after_a_restart_gets_the_first_answer(standing: Standing) -> None:
    prefix, key = unique("restart"), unique("key")
    first = await standing.submit(saving(prefix), key)
    async with standing.restarted():
        assert same(await standing.submit(saving(prefix), key), first)
        other = await standing.submit(saving(prefix, 7), key)
        assert (other.status, other.type) == (422, "idempotency_key_reused")
    assert await standing.count(prefix) == 1


async def test_of_many_at_once_one_runs(standing: Standing) -> None:
    prefix, key = unique("many"), unique("key")
    standing.relay.loses = Loses.NOTHING_YET
    first = asyncio.ensure_future(standing.submit(saving(prefix), key))
    await asyncio.wait_for(standing.relay.has_answer.wait(), GUARD_S)
    others = await asyncio.gather(*(standing.submit(saving(prefix), key) for _ in range(20)))
    assert Counter((other.status, other.type) for other in others) == {(409, "idempotency_key_in_use"): 20}
    assert all(int(other.headers["Retry-After"]) >= 1 for other in others)
    reused = await standing.submit(saving(prefix, 7), key)
    assert (reused.status, reused.type) == (422, "idempotency_key_reused")
    standing.relay.may_answer.set()
    answer = await first
    assert answer.status == 200
    assert same(await standing.submit(saving(prefix), key), answer)
    assert await standing.count(prefix) == 1


@pytest.mark.parametrize("key", ["", '""', "x" * 256, '"a', '"a", "b"'])
async def test_what_is_no_key_is_refused(gate: Running, key: str) -> None:
    answer = await sent(gate.session, gate.url, gate.headers("alice"), saving("none"), key)
    assert (answer.status, answer.type) == (400, "header_malformed")
    assert "printable ASCII" in answer.json()["error"]["message"]


async def test_what_a_document_says_is_refused_alike(standing: Standing) -> None:
    """By the gate (403, 400) and by ComfyUI (400): the same bytes again, and ComfyUI is not asked again."""
    before, key = standing.relay.submissions, unique("key")
    refused = {
        "class": ({"1": node("ExecPython", code="pass")}, 403),
        "shape": ({"1": {"inputs": {}}}, 400),
        "comfyui": ({"1": node("EmptyImage", width=32, height=32, batch_size=1, color=1)}, 400),
    }
    for name, (graph, status) in refused.items():
        first = await standing.submit(graph, f"{key}-{name}")
        assert first.status == status, first.body
        again = await standing.submit(graph, f"{key}-{name}")
        assert same(again, first)
        assert again.headers["Idempotency-Replayed"] == "true"
    assert standing.relay.submissions - before <= 1
    assert standing.audit("decision") == ["refused"] * 6
    assert standing.audit("by")[:4] == ["gate", None] * 2, "a repeat is refused by what was answered first"


async def test_what_the_moment_says_is_not_kept(standing: Standing) -> None:
    """Over a limit, a taken id: the same request runs when the moment has passed."""
    gate, prefix = standing.gate, unique("moment")
    text = gate.config_file.read_text(encoding="utf-8")
    gate.config_file.write_text(text.replace("queued_jobs = 1000", "queued_jobs = 0"), encoding="utf-8")
    assert await gate.gate.reload(gate.config_file)
    key = unique("key")
    full = await standing.submit(saving(prefix), key)
    assert (full.status, full.type) == (429, "queue_full")
    gate.config_file.write_text(text, encoding="utf-8")
    assert await gate.gate.reload(gate.config_file)
    assert (await standing.submit(saving(prefix), key)).status == 200
    assert await standing.count(prefix) == 1


async def test_what_was_never_sent_runs_at_once_when_comfyui_is_back(
    standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection came to be: nothing has to be waited for."""
    prefix, key = unique("refused"), unique("key")
    upstream = standing.gate.gate.dependencies.upstream
    await standing.gate.gate.dependencies.catalogue.known()

    async def refuse() -> None:
        raise ConnectionRefusedError

    with monkeypatch.context() as broken:
        broken.setattr(upstream._addresses, "connect", refuse)
        broken.setattr(upstream, "_idle_connection", lambda: None)  # also one that a reader of the queue gives back
        assert (await standing.submit(saving(prefix), key)).status == 502
    assert (await standing.submit(saving(prefix), key)).status == 200
    assert await standing.count(prefix) == 1
    assert standing.audit() == ["first", "first"]


@pytest.mark.parametrize("hangs_up", [True, False])
async def test_a_lost_answer_is_given_from_what_comfyui_has(
    standing: Standing, monkeypatch: pytest.MonkeyPatch, hangs_up: bool
) -> None:
    prefix, key = unique("lost"), unique("key")
    standing.relay.loses, standing.relay.hangs_up = Loses.ANSWER, hangs_up
    if not hangs_up:
        # Of this submission alone: the rest of ComfyUI is as quick as it is.
        monkeypatch.setattr(standing.gate.gate.dependencies.upstream, "ask", impatient(standing.gate))
    first = await standing.submit(saving(prefix), key)
    assert first.status == (502 if hangs_up else 504)
    standing.relay.loses = Loses.NOTHING
    again = await standing.submit(saving(prefix), key)
    assert again.status == 200, again.body
    prompt_id = again.json()["prompt_id"]
    assert same(await standing.submit(saving(prefix), key), again)
    assert await standing.count(prefix) == 1
    while prompt_id in str(await standing.gate.json("GET", "/queue", "alice")):
        pass
    assert prompt_id in await standing.gate.json("GET", f"/history/{prompt_id}", "alice")
    assert standing.audit() == ["first", "found", "replayed"]


def impatient(gate: Running) -> Any:
    ask = gate.gate.dependencies.upstream.ask

    async def quickly(call: Any, *, time_limit_s: float, **more: Any) -> Any:
        return await ask(call, time_limit_s=0.2 if call.method == "POST" else time_limit_s, **more)

    return quickly


async def test_a_lost_submission_runs_anew_when_it_is_certainly_not_there(
    standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, key = unique("gone"), unique("key")
    standing.relay.loses = Loses.SUBMISSION
    assert (await standing.submit(saving(prefix), key)).status == 502
    standing.relay.loses = Loses.NOTHING
    early = await standing.submit(saving(prefix), key)
    assert (early.status, early.type) == (409, "idempotency_key_in_use")
    assert 1 <= int(early.headers["Retry-After"]) <= idempotency.UNCERTAIN_S
    other = await standing.submit(saving(prefix, 7), key)
    assert other.status == 422
    monkeypatch.setattr(idempotency, "UNCERTAIN_S", 0.0)
    assert (await standing.submit(saving(prefix), key)).status == 200
    assert await standing.count(prefix) == 1
    assert standing.audit() == ["first", "in-use", "reused", "first"]


@pytest.mark.parametrize("who", ["alice", "admin"])
async def test_a_gate_that_is_killed_in_between_leaves_one_job(comfy_url: str, tmp_path: Path, who: str) -> None:
    """ComfyUI has the job, nobody was told: the next gate finds it, by the id that was on disk before."""
    prefix, key = unique("killed"), unique("key")
    async with Relay(comfy_url).run() as relay:
        config, keys = write_config(tmp_path, relay.url)
        relay.loses = Loses.NOTHING_YET
        async with served(config, keys) as gate:
            first = asyncio.ensure_future(sent(gate.session, gate.url, gate.bearer(who), saving(prefix), key))
            await asyncio.wait_for(relay.has_answer.wait(), GUARD_S)
            gate.process.process.kill()
            await gate.process.ended()
            with pytest.raises(aiohttp.ClientError):
                await first
        relay.loses = Loses.NOTHING
        async with served(config, keys) as gate:
            await gate.process.said("connected to ComfyUI")
            again = await sent(gate.session, gate.url, gate.bearer(who), saving(prefix), key)
            assert again.status == 200, again.body
            assert same(await sent(gate.session, gate.url, gate.bearer(who), saving(prefix), key), again)
            assert await jobs_of(gate.session, comfy_url, prefix) == 1
            assert again.json()["prompt_id"] in (await gate.ask("GET", "/history", who))[1]


async def test_a_gate_that_is_killed_before_comfyui_has_the_job_runs_it_later(comfy_url: str, tmp_path: Path) -> None:
    prefix, key = unique("unsent"), unique("key")
    async with Relay(comfy_url).run() as relay:
        config, keys = write_config(tmp_path, relay.url)
        relay.loses, relay.hangs_up = Loses.SUBMISSION, False
        async with served(config, keys) as gate:
            first = asyncio.ensure_future(sent(gate.session, gate.url, gate.bearer("alice"), saving(prefix), key))
            await asyncio.wait_for(relay.has_answer.wait(), GUARD_S)
            gate.process.process.kill()
            await gate.process.ended()
            with pytest.raises(aiohttp.ClientError):
                await first
        relay.loses = Loses.NOTHING
        answers = set()
        for _ in range(2):
            async with served(config, keys) as gate:
                await gate.process.said("connected to ComfyUI")
                again = await sent(gate.session, gate.url, gate.bearer("alice"), saving(prefix), key)
                assert again.status == 200, "it was on disk before ComfyUI was sent it"
                answers.add(again.json()["prompt_id"])
                async with asyncio.timeout(GUARD_S):
                    while await jobs_of(gate.session, comfy_url, prefix) == 0:
                        await asyncio.sleep(0.05)
                assert await jobs_of(gate.session, comfy_url, prefix) == 1
        assert len(answers) == 1


async def test_a_client_that_leaves_finds_its_job_by_its_key(standing: Standing) -> None:
    prefix, key = unique("left"), unique("key")
    standing.relay.loses = Loses.NOTHING_YET
    async with aiohttp.ClientSession() as session:
        gate = standing.gate
        leaving = asyncio.ensure_future(sent(session, gate.url, gate.headers("alice"), saving(prefix), key))
        await asyncio.wait_for(standing.relay.has_answer.wait(), GUARD_S)
        leaving.cancel()
        await asyncio.wait({leaving})
    assert (await standing.submit(saving(prefix), key)).status == 409
    standing.relay.may_answer.set()
    async with asyncio.timeout(GUARD_S):
        while (again := await standing.submit(saving(prefix), key)).status == 409:
            pass
    assert again.status == 200
    assert await standing.count(prefix) == 1


async def test_a_key_that_cannot_be_kept_is_refused_and_nothing_runs(gate: Running) -> None:
    prefix, key = unique("full"), unique("key")
    assert gate.comfy is not None

    state = gate.gate._state

    def rename(old: str, new: str) -> Operation[None]:
        yield Statement(f"ALTER TABLE {old} RENAME TO {new}")

    await state.run(rename, "idempotent_submissions", "away")
    answer = await sent(gate.session, gate.url, gate.headers("alice"), saving(prefix), key)
    assert (answer.status, answer.type) == (503, "idempotency_unavailable")
    assert "Retry-After" in answer.headers
    assert (await sent(gate.session, gate.url, gate.headers("alice"), saving(unique()), None)).status == 200
    await state.run(rename, "away", "idempotent_submissions")
    assert (await sent(gate.session, gate.url, gate.headers("alice"), saving(prefix), key)).status == 200
    assert await jobs_of(gate.session, gate.comfy.url, prefix) == 1


async def test_an_app_of_another_origin_may_send_the_key(comfy: StandIn, tmp_path: Path) -> None:
    async with running_gate(tmp_path, comfy.url, server='cors_origins = ["https://app.example"]') as gate:
        asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        async with gate.call("OPTIONS", "/prompt", None, headers=asking) as answer:
            assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]
        async with gate.call("GET", "/queue", "alice", headers={"Origin": "https://app.example"}) as answer:
            assert "Idempotency-Replayed" in answer.headers["Access-Control-Expose-Headers"]
