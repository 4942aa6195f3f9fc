"""Webhooks of what becomes of copies, through the whole gate: they come when the bucket has everything, with links."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from policy.copies import CopyState
from proxy.copies.copy_operations import resend
from standin import StandIn
from tests.contract.driver import saving, unique
from tests.harness import Running
from tests.proxy.copies.forming import forming
from tests.proxy.copies.making import copier_of, database_of, eventually, in_its_own_time, later, made, settled
from tests.proxy.copies.s3 import S3Server, storage
from tests.proxy.v2.asking import ask, audited, submitted
from tests.proxy.webhooks.receiver import Received, Receiver, receiving

ALL = '["job.succeeded", "job.stored", "job.storage_failed"]'


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def gate(tmp_path: Path, comfy: StandIn, s3: S3Server, receiver: Receiver) -> AsyncIterator[Running]:
    """Two endpoints of alice's, one that wants everything, and one that wants the ends of jobs; and mallory's."""
    more = storage(s3, tmp_path) + receiver.endpoint(tmp_path, "all", events=ALL)
    more += receiver.endpoint(tmp_path, "ends") + receiver.endpoint(tmp_path, "theirs", "mallory", events=ALL)
    async with forming(tmp_path, comfy, more, server='public_url = "https://comfy.example.com"') as running:
        yield running


def of(receiver: Receiver, kind: str) -> list[Received]:
    return [each for each in receiver.got if each.event["type"] == kind]


async def fetched(gate: Running, link: Any) -> bytes:
    async with gate.session.get(link["url"]) as answer:
        assert answer.status == 200
        return await answer.read()


async def test_a_job_is_stored_when_all_its_files_are_and_has_their_links(gate: Running, receiver: Receiver) -> None:
    graph = saving(unique())
    graph["1"]["inputs"]["batch_size"] = 3
    done = await submitted(gate, graph)
    await receiver.until(lambda got: len(got) == 3)
    [told] = of(receiver, "job.stored")
    assert (told.job, told.path) == (done, "/all")
    assert told.event["data"]["status"] == "succeeded"
    outputs = told.event["data"]["outputs"]
    assert len({(await fetched(gate, output["link"]))[:4] for output in outputs}) == 1
    assert len({output["link"]["url"] for output in outputs}) == 3
    assert told.event["timestamp"] >= told.event["data"]["completed_at"]
    assert sorted(each.path for each in of(receiver, "job.succeeded")) == ["/all", "/ends"]
    await settled(gate, 3)
    assert {line["type"] for line in audited(gate, "webhook")} <= {"job.succeeded", "job.stored"}


async def test_nothing_is_said_to_be_stored_before_it_is(gate: Running, receiver: Receiver, s3: S3Server) -> None:
    s3.freeze()
    await made(gate)
    await receiver.until(lambda got: len(got) == 2)
    await eventually(gate, lambda found: any(copy.asset_id and copy.gate for copy in found))
    assert of(receiver, "job.stored") == []
    s3.thaw()
    await receiver.until(lambda got: len(got) == 3)
    assert receiver.got[-1].event["type"] == "job.stored"


async def test_what_a_function_gives_is_among_it(gate: Running, receiver: Receiver) -> None:
    answer = await ask(gate, "POST", "/gate/run/paint", json={})
    await receiver.until(lambda got: any(each.event["type"] == "job.stored" for each in got))
    [told] = of(receiver, "job.stored")
    assert told.job == answer.body["id"]
    [output] = told.event["data"]["outputs"]
    [form] = output["forms"]
    assert (output["name"], form["name"]) == ("painted_00001_.png", "painted_00001_.webp")
    assert (await fetched(gate, output["link"]))[1:4] == b"PNG"
    webp = await fetched(gate, form["link"])
    assert (webp[8:12], len(webp)) == (b"WEBP", form["size_bytes"])
    shown = (await ask(gate, "GET", f"/gate/jobs/{told.job}")).body["outputs"][0]
    assert (shown["hash"], shown["link"]["url"].partition("?")[0]) == (
        form["hash"],
        form["link"]["url"].partition("?")[0],
    )
    assert "forms" not in shown


async def test_a_copy_that_is_given_up_is_told_and_so_is_that_it_is_there_after_all(
    gate: Running, receiver: Receiver, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.copies.copier.wait_after", lambda attempts, chance: None)
    clock = in_its_own_time(gate)
    await s3.kill()
    done = await made(gate)
    [failed] = await settled(gate, 1, CopyState.FAILED)
    await receiver.until(lambda got: len(got) == 3)
    [told] = of(receiver, "job.storage_failed")
    assert told.job == done
    assert ["link" in output for output in told.event["data"]["outputs"]] == [False]
    await s3.start()
    await database_of(gate).run(resend, [failed.copy_id], clock())
    copier_of(gate).wake()
    later(gate, clock, 1.0)
    await receiver.until(lambda got: len(got) == 4)
    assert [each.job for each in of(receiver, "job.stored")] == [done]
