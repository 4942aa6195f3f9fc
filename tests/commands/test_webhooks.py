"""`comfygate webhooks` beside a gate that runs, and without one."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from proxy.config import load_config
from proxy.webhooks.endpoint import make_endpoints
from standin import StandIn
from tests.commands.cli import Said, aside, comfygate
from tests.contract.driver import saving, unique
from tests.harness import Running, running_gate
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.asking import submitted
from tests.proxy.webhooks.receiver import Receiver, receiving


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def gate(tmp_path: Path, comfy: StandIn, receiver: Receiver) -> AsyncIterator[Running]:
    async with running_gate(tmp_path, comfy.url, more=receiver.endpoint(tmp_path, "shop")) as running:
        yield running


async def webhooks(gate: Running, *words: object) -> Said:
    return await aside("webhooks", *words, "--config", gate.config_file)


async def until(gate: Running, text: str) -> str:
    """The list, when it has this."""
    async with asyncio.timeout(GUARD_S):
        while text not in (said := await webhooks(gate, "list")).out + said.err:
            pass
    return said.out + said.err


def test_a_secret_is_made_for_its_owner_alone_and_used_as_the_command_says(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    said = comfygate("webhooks", "secret", "shop", "--config", config)
    file = tmp_path / "webhook-shop.secret"
    assert said.code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text("ascii").strip() not in said.out
    block = said.out[said.out.index("[[webhooks]]") : said.out.index("\n\nWhere the endpoint")]
    config.write_text(
        "[tenants.alice]\n"
        + block.replace("NAME OF THE TENANT", "alice").replace("ADDRESS OF THE RECEIVER", "shop.example.com"),
        "utf-8",
    )
    mistakes: list[object] = []
    assert [each.name for each in make_endpoints(load_config(config), mistakes)] == ["shop"]  # type: ignore[arg-type]
    assert not mistakes


def test_a_secret_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    config, elsewhere = tmp_path / "config.toml", tmp_path / "other" / "a.secret"
    assert comfygate("webhooks", "secret", "shop", "--config", config).code == 0
    before = (tmp_path / "webhook-shop.secret").read_bytes()
    said = comfygate("webhooks", "secret", "shop", "--config", config)
    assert (said.code, (tmp_path / "webhook-shop.secret").read_bytes()) == (1, before)
    assert "is there already" in said.err
    said = comfygate("webhooks", "secret", "shop", "--output", elsewhere, "--config", config)
    assert (said.code, "cannot be written" in said.err) == (1, True)
    elsewhere.parent.mkdir()
    assert comfygate("webhooks", "secret", "shop", "--output", elsewhere, "--config", config).code == 0
    said = comfygate("webhooks", "secret", "../shop", "--config", config)
    assert (said.code, "lower-case letters" in said.err) == (1, True)


def test_check_refuses_an_endpoint_without_its_secret(tmp_path: Path, comfy: StandIn) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f'[upstream]\nurl = "{comfy.url}"\n[tenants.alice]\n[[webhooks]]\nname = "shop"\ntenant = "alice"\n'
        'url = "https://shop.example.com"\nsecret_file = "no.secret"\n',
        "utf-8",
    )
    said = comfygate("check", "--config", config)
    assert said.code == 1
    assert "webhooks[0].secret_file" in said.err


async def test_what_is_delivered_and_what_is_not_is_listed_and_sent_again(gate: Running, receiver: Receiver) -> None:
    assert (await webhooks(gate, "list")).err == "There is none.\n"
    receiver.answer = lambda received: web.Response(status=410)
    first = await submitted(gate, saving(unique()))
    text = await until(gate, "switched off since")
    assert "shop answered 410 and is switched off" in text
    assert "switched-off" in text
    [line] = [orjson.loads(line) for line in (await webhooks(gate, "list", "--json")).out.splitlines()]
    assert (line["job"], line["tenant"], line["endpoint"], line["type"]) == (first, "alice", "shop", "job.succeeded")
    assert (line["outcome"], line["next_attempt_at"], line["attempts"]) == ("switched-off", None, 1)
    assert line["note"] == "answered 410"
    receiver.answer = lambda received: web.Response(status=204)
    said = await webhooks(gate, "resend", line["id"])
    assert said.out == f"{line['id']} of job {first} is sent to shop again.\n"
    got = await receiver.until(lambda got: len(got) == 2)
    assert got[0].id == got[1].id == line["id"]
    await until(gate, "delivered")
    receiver.answer = lambda received: web.Response(status=503, headers={"Retry-After": "1000"})
    second = await submitted(gate, saving(unique()))
    assert second in await until(gate, "waits 9")
    head, *rows = (await webhooks(gate, "list", "--waiting")).out.splitlines()
    assert head.split() == ["ID", "TENANT", "ENDPOINT", "EVENT", "JOB", "ENDED", "STATE", "ATTEMPTS", "NOTE"]
    assert [row.split()[4] for row in rows] == [second]
    assert [row.split()[4] for row in (await webhooks(gate, "list", "--done")).out.splitlines()[1:]] == [first]
    assert (await webhooks(gate, "list", "--tenant", "mallory")).err == "There is no such webhook.\n"


async def test_what_is_not_there_cannot_be_sent_again(gate: Running) -> None:
    said = await webhooks(gate, "resend", "msg_no", "a\x1bb")
    assert (said.code, said.err) == (1, "There is no webhook msg_no, a?b.\n")
