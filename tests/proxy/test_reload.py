"""The configuration changes while the gate runs: a good file is in force at once, a broken one changes nothing, and no count is forgotten."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType

from proxy.auth import key_file
from standin import StandIn
from tests.commands.served import Served, served
from tests.contract.driver import saving
from tests.harness import AUDIT_FILE, Running, write_config

GUARD_S = 240.0
GOOD = 'comfygate_config_reloads_total{result="good"}'
BAD = 'comfygate_config_reloads_total{result="bad"}'
BROKEN = {
    "no TOML": "[server\n",
    "an unknown setting": "\n[sessions]\nno_such = 1\n",
    "a bad value": '\n[sessions]\nlifetime = "soon"\n',
    "a tenant that is none": '\n[[keys]]\nid = "0123abcd"\ntenant = "nobody"\nhash = "x"\n',
}


def key_id(text: str) -> str:
    return text.split("_")[1]


def reloads(gate: Running, result: str) -> float | None:
    return gate.gate.metrics.registry.get_sample_value("comfygate_config_reloads_total", {"result": result})


async def session_of(gate: Running | Served, key: str) -> dict[str, str]:
    """A browser's session, as a header."""
    address = gate.address("/gate/login")
    async with gate.session.post(
        address, data={"key": key}, headers={"Origin": gate.url}, allow_redirects=False
    ) as answer:
        assert answer.status == 303, await answer.text()
        cookie = answer.cookies["comfygate_session"].value
    gate.session.cookie_jar.clear()
    return {"Cookie": f"comfygate_session={cookie}"}


async def close_code(client: aiohttp.ClientWebSocketResponse) -> int | None:
    while (await client.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR):
        pass
    return client.close_code


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


async def test_a_new_key_works_and_a_revoked_one_stops(gate: Running) -> None:
    session = await session_of(gate, gate.keys["alice"])
    assert await gate.status("GET", "/queue", None, headers=session) == 200
    new = key_file.create_key(gate.config_file, tenant="alice").text
    bearer = {"Authorization": f"Bearer {new}"}
    assert await gate.status("GET", "/queue", None, headers=bearer) == 401
    key_file.revoke_key(gate.config_file, key_id(gate.keys["alice"]))
    assert await gate.gate.reload(gate.config_file)
    assert await gate.status("GET", "/queue", None, headers=bearer) == 200
    assert await gate.status("GET", "/queue", "alice") == 401
    assert await gate.status("GET", "/queue", None, headers=session) == 401
    assert await gate.status("GET", "/queue", "mallory") == 200
    assert reloads(gate, "good") == 1
    trail = [orjson.loads(line) for line in (gate.config_file.parent / AUDIT_FILE).read_bytes().splitlines()]
    changes = {entry["key"]: entry["change"] for entry in trail if entry["event"] == "key"}
    assert changes == {key_id(new): "added", key_id(gate.keys["alice"]): "removed"}


@pytest.mark.parametrize("mistake", BROKEN.values(), ids=BROKEN)
async def test_a_broken_file_changes_nothing(gate: Running, mistake: str, caplog: pytest.LogCaptureFixture) -> None:
    before = gate.gate.dependencies.compiled
    key_file.revoke_key(gate.config_file, key_id(gate.keys["alice"]))
    good = gate.config_file.read_text(encoding="utf-8")
    gate.config_file.write_text(good + mistake, encoding="utf-8")
    with caplog.at_level(logging.ERROR, "comfygate"):
        assert not await gate.gate.reload(gate.config_file)
    assert "the old one stays in force" in caplog.text
    assert gate.gate.dependencies.compiled is before
    assert await gate.status("GET", "/queue", "alice") == 200
    assert (reloads(gate, "good"), reloads(gate, "bad")) == (0, 1)
    last = orjson.loads((gate.config_file.parent / AUDIT_FILE).read_bytes().splitlines()[-1])
    assert (last["event"], last["result"], len(last["mistakes"]) > 0) == ("config", "bad", True)
    gate.config_file.write_text(good, encoding="utf-8")
    assert await gate.gate.reload(gate.config_file)
    assert await gate.status("GET", "/queue", "alice") == 401


async def test_limits_change_and_counts_stay(gate: Running) -> None:
    async def prompt(who: str) -> int:
        return await gate.status("POST", "/prompt", who, json={"prompt": saving("reload")})

    assert [await prompt("alice") for _ in range(3)] == [200] * 3
    change(gate.config_file, 'prompts = "100000/minute"', 'prompts = "3/hour"')
    change(gate.config_file, 'prompts = "3/hour"', 'prompts = "3/minute"')
    assert await gate.gate.reload(gate.config_file)
    assert await prompt("alice") == 429
    assert await prompt("mallory") == 200
    change(gate.config_file, 'prompts = "3/minute"', 'prompts = "4/minute"')
    assert await gate.gate.reload(gate.config_file)
    assert [await prompt("alice") for _ in range(2)] == [200, 429]


async def test_the_watched_file(tmp_path: Path, comfy: StandIn) -> None:
    """The real process, from the file alone: keys come and go with their sockets and sessions, and a broken file is told."""
    config, keys = write_config(tmp_path, comfy.url, more='[limits.logins]\nfailures = "100000/minute"\ndelay = "0s"')
    async with served(config, keys) as gate, asyncio.timeout(GUARD_S):
        session = await session_of(gate, keys["alice"])
        assert (await gate.ask("GET", "/queue", None, headers=session))[0] == 200
        gate.keys["new"] = key_file.create_key(config, tenant="alice").text
        await gate.process.said("configuration reloaded")
        assert (await gate.ask("GET", "/queue", "new"))[0] == 200
        async with (
            gate.session.ws_connect(gate.address("/ws"), headers=gate.bearer("alice")) as events,
            gate.session.ws_connect(gate.address("/ws"), headers=session | {"Origin": gate.url}) as browser,
            gate.session.ws_connect(gate.address("/ws"), headers=gate.bearer("new")) as other,
        ):
            key_file.revoke_key(config, key_id(keys["alice"]))
            assert await close_code(events) == 4401
            assert await close_code(browser) == 4401
            assert (await gate.ask("GET", "/queue", "alice"))[0] == 401
            assert (await gate.ask("GET", "/queue", None, headers=session))[0] == 401
            assert (await gate.ask("GET", "/queue", "new"))[0] == 200
            assert not other.closed
            await is_refused(gate, config)
            assert (await gate.ask("GET", "/queue", "new"))[0] == 200
            assert not other.closed


async def is_refused(gate: Served, config: Path) -> None:
    good = config.read_text(encoding="utf-8")
    counted = await gate.metric(GOOD)
    config.write_text(good + BROKEN["an unknown setting"], encoding="utf-8")
    line: dict[str, Any] = orjson.loads(await gate.process.said("the old one stays in force"))
    assert (line["level"], "no_such" in line["message"]) == ("error", True)
    assert (await gate.metric(GOOD), await gate.metric(BAD)) == (counted, 1)
    config.write_text(good, encoding="utf-8")
    await gate.process.said("configuration reloaded", times=int(counted) + 1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
async def test_sighup_reloads_an_unchanged_file(tmp_path: Path, comfy: StandIn) -> None:
    config, keys = write_config(tmp_path, comfy.url)
    async with served(config, keys) as gate, asyncio.timeout(GUARD_S):
        for number in (1, 2):
            gate.send(signal.SIGHUP)
            await gate.process.said("configuration reloaded", times=number)
            assert await gate.metric(GOOD) == number
        assert (await gate.ask("GET", "/queue"))[0] == 200
