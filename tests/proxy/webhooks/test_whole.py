"""From a job's end to a receiver that verifies what comes: through the whole gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from standin import StandIn
from tests.contract.driver import saving, slow, unique
from tests.harness import AUDIT_FILE, Running, running_gate
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.asking import JOBS, ask, audited, cancel, job, submitted, until
from tests.proxy.webhooks.receiver import Receiver, receiving


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def gate(tmp_path: Path, comfy: StandIn, receiver: Receiver) -> AsyncIterator[Running]:
    more = receiver.endpoint(tmp_path, "shop") + receiver.endpoint(tmp_path, "other", "mallory")
    server = 'public_url = "https://comfy.example.com"'
    async with running_gate(tmp_path, comfy.url, more=more, server=server) as running:
        running.comfy = comfy
        yield running


async def audited_until(gate: Running, count: int) -> list[dict[str, object]]:
    async with asyncio.timeout(GUARD_S):
        while len(found := audited(gate, "webhook")) < count:
            await asyncio.sleep(0.01)
    return found


async def test_each_end_of_a_job_is_told_once_with_the_job_as_the_api_shows_it(
    gate: Running, receiver: Receiver
) -> None:
    done = await submitted(gate, saving(unique()), metadata={"order": "7"})
    [told] = await receiver.until(lambda got: len(got) == 1)
    assert told.event["type"] == "job.succeeded"
    shown = await job(gate, done)
    assert told.event["timestamp"] == shown["completed_at"]
    assert told.event["data"]["urls"]["self"] == f"https://comfy.example.com{JOBS}/{done}"
    assert told.event["data"] | {"urls": None, "outputs": None} == shown | {"urls": None, "outputs": None}
    [output] = told.event["data"]["outputs"]
    assert output["url"] == f"https://comfy.example.com/api/v2/assets/{output['id']}/content"
    running = await submitted(gate, slow())
    await until(gate, running, "running")
    assert (await ask(gate, "GET", f"{JOBS}/{running}")).status == 200
    waiting = [await submitted(gate, slow()) for _ in range(2)][-1]
    await cancel(gate, waiting)
    await cancel(gate, running)
    got = await receiver.until(lambda got: len(got) >= 3)
    assert {each.job: each.event["type"] for each in got[1:3]} == {
        waiting: "job.canceled",
        running: "job.canceled",
    }
    assert len({each.id for each in got}) == len(got)
    assert {each.path for each in got} == {"/shop"}, "a neighbour's endpoint hears nothing"


async def test_what_was_sent_stands_in_the_audit_trail_and_in_metrics(gate: Running, receiver: Receiver) -> None:
    receiver.answer = lambda received: web.Response(status=500, text="CANARY")
    done = await submitted(gate, saving(unique()))
    [line] = await audited_until(gate, 1)
    assert line["prompt_id"] == done
    assert (line["endpoint"], line["tenant"], line["result"]) == ("shop", "alice", "failed")
    assert (line["attempt"], line["note"]) == (1, "answered 500")
    async with gate.session.get(f"{gate.ops_url}/metrics") as response:
        text = await response.text()
    assert 'comfygate_webhook_attempts_total{endpoint="shop",result="failed",tenant="alice"} 1.0' in text
    assert 'comfygate_webhook_endpoint_up{endpoint="shop",tenant="alice"} 0.0' in text


async def test_neither_secret_nor_path_of_an_endpoint_nor_its_answer_is_written_anywhere(
    gate: Running, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda received: web.Response(status=410, text="CANARY")
    await submitted(gate, saving(unique()))
    await audited_until(gate, 1)
    trail = (gate.config_file.parent / AUDIT_FILE).read_text("utf-8")
    written = "\n".join((trail, gate.log.getvalue().decode(), caplog.text))
    assert "switched off" in written
    for hidden in (receiver.secrets["/shop"].removeprefix("whsec_"), f"{receiver.url}/shop", "CANARY"):
        assert hidden not in written


async def test_a_receiver_that_does_not_answer_holds_up_nobody_else(gate: Running, receiver: Receiver) -> None:
    receiver.held.clear()
    for _ in range(4):
        await submitted(gate, saving(unique()))
    got = await receiver.until(lambda got: len(got) == 2)
    theirs = await submitted(gate, saving(unique()), "mallory")
    got = await receiver.until(lambda got: any(each.job == theirs for each in got))
    assert [each.path for each in got] == ["/shop", "/shop", "/other"], "two at once to one endpoint"
    receiver.held.set()
    await receiver.until(lambda got: len(got) == 5)


async def test_a_changed_configuration_is_told_from_then_on(gate: Running, receiver: Receiver) -> None:
    text = gate.config_file.read_text("utf-8")
    new = receiver.endpoint(gate.config_file.parent, "new", events='["job.canceled"]')
    gate.config_file.write_text(text.replace('name = "shop"', 'name = "desk"') + new, "utf-8")
    assert await gate.gate.reload(gate.config_file)
    running = await submitted(gate, slow())
    await until(gate, running, "running")
    await cancel(gate, running)
    got = await receiver.until(lambda got: len(got) == 2)
    assert {each.path for each in got} == {"/shop", "/new"}
    await submitted(gate, saving(unique()))
    await receiver.until(lambda got: len(got) == 3)
    assert receiver.got[-1].path == "/shop"


async def test_both_secrets_sign_while_one_is_changed(gate: Running, receiver: Receiver) -> None:
    old = receiver.secrets["/shop"]
    text = gate.config_file.read_text("utf-8")
    receiver.endpoint(gate.config_file.parent, "fresh")
    gate.config_file.write_text(
        text.replace(
            'secret_file = "shop.secret"', 'secret_file = "fresh.secret"\nprevious_secret_file = "shop.secret"'
        ),
        "utf-8",
    )
    assert await gate.gate.reload(gate.config_file)
    await submitted(gate, saving(unique()))
    [told] = await receiver.until(lambda got: len(got) == 1)
    assert len(told.signatures) == 2
    receiver.secrets["/shop"] = receiver.secrets["/fresh"]
    await submitted(gate, saving(unique()))
    await receiver.until(lambda got: len(got) == 2)
    assert receiver.secrets["/shop"] != old
