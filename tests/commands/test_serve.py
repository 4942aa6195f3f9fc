"""The life of the process: it starts or says why not, drains when it is asked to end, and loses nothing when it is killed."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType

from proxy.commands.exits import Exit
from proxy.observability.audit_log import read_trail
from standin import StandIn
from tests.commands.served import Served, served, started
from tests.contract.driver import saving, slow
from tests.harness import AUDIT_FILE, write_config
from tests.wire.raw import connect

BIG_BYTES = 100 * 1024 * 1024
PIECE_BYTES = 64 * 1024
PAUSE_S = 0.001
"""After each piece that a slow client reads."""
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes without asking them")


async def close_code(client: aiohttp.ClientWebSocketResponse) -> int | None:
    while (await client.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR):
        pass
    return client.close_code


@needs_signals
async def test_sigterm_lets_a_download_end_and_closes_websockets(tmp_path: Path, comfy: StandIn) -> None:
    with (Path(comfy.folders.base) / "output" / "big.bin").open("wb") as file:
        file.truncate(BIG_BYTES)
    config, keys = write_config(tmp_path, comfy.url, shutdown_grace="50s")
    async with served(config, keys) as gate:
        view = gate.address("/view?filename=big.bin&type=output")
        async with (
            gate.session.get(view, headers=gate.bearer("admin")) as download,
            gate.session.ws_connect(gate.address("/ws"), headers=gate.bearer("alice")) as events,
        ):
            assert download.status == 200
            received = len(await download.content.readany())
            gate.send(signal.SIGTERM)
            assert await close_code(events) == 1001
            with pytest.raises(ConnectionError):
                await connect(gate.url)
            status, text = await gate.ops("/readyz")
            assert (status, orjson.loads(text)["status"]) == (503, "stopping")
            assert gate.process.process.returncode is None
            assert received < BIG_BYTES // 2
            # Slower than the gate cuts off what it does not wait for.
            while chunk := await download.content.read(PIECE_BYTES):
                received += len(chunk)
                await asyncio.sleep(PAUSE_S)
        assert received == BIG_BYTES
        assert await gate.process.ended() == Exit.OK


@needs_signals
async def test_what_does_not_end_in_time_is_cut_off(tmp_path: Path, comfy: StandIn) -> None:
    with (Path(comfy.folders.base) / "output" / "big.bin").open("wb") as file:
        file.truncate(BIG_BYTES)
    config, keys = write_config(tmp_path, comfy.url, shutdown_grace="200ms")
    async with served(config, keys) as gate:
        view = gate.address("/view?filename=big.bin&type=output")
        async with gate.session.get(view, headers=gate.bearer("admin")) as download:
            await download.content.readany()
            gate.send(signal.SIGTERM)
            assert await gate.process.ended() == Exit.OK
            with pytest.raises(aiohttp.ClientError):
                await download.read()
        await gate.process.said("they are cut off")


@needs_signals
async def test_a_part_that_never_ends_holds_up_no_stop(tmp_path: Path, comfy: StandIn) -> None:
    deaf = """
import asyncio
from proxy import tasks
from proxy.upstream.compressor import Compressor
async def stop(self):
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
Compressor.stop, tasks.WORD_EACH_S = stop, 0.0
"""
    config, keys = write_config(tmp_path, comfy.url)
    async with served(config, keys, before=deaf) as gate:
        gate.send(signal.SIGTERM)
        assert await gate.process.ended() == Exit.UNENDED
        await gate.process.said("stopping does not wait for the end of compression any longer")


async def submit(gate: Served, who: str, graph: dict[str, Any]) -> str:
    status, answer = await gate.ask("POST", "/prompt", who, json={"prompt": graph})
    assert status == 200, answer
    return str(answer["prompt_id"])


async def gpu_left_s(gate: Served, who: str) -> float:
    _, view = await gate.ask("GET", "/gate/me", who)
    return float(view["gpu"]["remaining"])


async def until_audited(trail: Path, event: str, wanted: set[str]) -> list[dict[str, Any]]:
    """All lines, when there is one of this event for each of these jobs: a thread writes them, and no answer waits for that."""
    while True:
        entries = list(read_trail(trail, 1))
        if wanted <= {entry["prompt_id"] for entry in entries if entry["event"] == event}:
            return entries
        await asyncio.sleep(0.01)


async def test_a_killed_gate_has_lost_nothing(tmp_path: Path, comfy: StandIn) -> None:
    """Jobs are their owner's, the budget counts what was used, and every line of the audit trail is whole."""
    config, keys = write_config(tmp_path, comfy.url, more='gpu_seconds = "3600/day"')
    trail = tmp_path / AUDIT_FILE
    async with served(config, keys) as gate:
        done = await submit(gate, "alice", slow(0.2, 2))
        await until_audited(trail, "job", {done})
        while (left_s := await gpu_left_s(gate, "alice")) == 3600:
            pass
        running, waiting = await submit(gate, "alice", slow()), await submit(gate, "alice", saving("later"))
        while not (await gate.ask("GET", "/queue"))[1]["queue_running"]:
            pass
        await until_audited(trail, "submission", {running, waiting})
        gate.process.process.kill()
        await gate.process.ended()
    assert trail.read_bytes().endswith(b"\n")
    with trail.open("ab") as file:
        file.write(b'{"time":"2026-')  # what a machine leaves behind that stops in the middle of a line
    async with served(config, keys) as gate:
        while (await gate.ops("/readyz"))[0] != 200:
            pass
        _, queue = await gate.ask("GET", "/queue")
        assert [item[1] for item in queue["queue_running"]] == [running]
        assert [item[1] for item in queue["queue_pending"]] == [waiting]
        assert done in (await gate.ask("GET", "/history"))[1]
        assert (await gate.ask("GET", "/queue", "mallory"))[1] == {"queue_running": [], "queue_pending": []}
        assert (await gate.ask("GET", "/history", "mallory"))[1] == {}
        assert await gpu_left_s(gate, "alice") == pytest.approx(left_s, abs=1e-3)
        assert await gpu_left_s(gate, "mallory") == 3600
        await gate.ask("POST", "/interrupt", json={"prompt_id": running})
        entries = await until_audited(trail, "job", {running, waiting})
    submitted = [entry["prompt_id"] for entry in entries if entry["event"] == "submission"]
    assert submitted == [done, running, waiting]
    jobs = [entry for entry in entries if entry["event"] == "job"]
    assert sorted(entry["prompt_id"] for entry in jobs) == sorted(submitted), "each job once"
    assert {entry["tenant"] for entry in jobs} == {"alice"}
    assert len([line for line in trail.read_bytes().splitlines() if not line.endswith(b"}")]) == 1, "the torn one alone"


@pytest.mark.parametrize("section", ["server", "ops"])
async def test_a_port_in_use_is_exit_3(tmp_path: Path, section: str) -> None:
    config, _ = write_config(tmp_path, "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace(f"[{section}]\nport = 0", f"[{section}]\nport = {port}"), encoding="utf-8")
        async with started("serve", "--config", str(config)) as process:
            assert await process.ended() == Exit.PORT_IN_USE
            said = await process.said(f"127.0.0.1:{port} is already in use")
    assert f"change {section}.port in config.toml" in said


async def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[server]\nport = "many"\nno_such_setting = 1\n[upstream]\nurl = "ftp://x"\n'
        '[tenants.alice]\npolicy = "nowhere"\n[limits.default]\nprompts = "often"\n',
        encoding="utf-8",
    )
    async with started("serve", "--config", str(config)) as process:
        assert await process.ended() == Exit.MISTAKE
        await process.said("The gate does not start")
    said = "".join(process.lines)
    for words in ("server.port", "no_such_setting", "upstream.url", "limits.default.prompts"):
        assert words in said, said
    assert "Traceback" not in said


async def test_a_configuration_that_is_not_there_is_exit_1(tmp_path: Path) -> None:
    async with started("serve", "--config", str(tmp_path / "none.toml")) as process:
        assert await process.ended() == Exit.MISTAKE
    assert "none.toml" in "".join(process.lines)


async def test_starts_while_comfyui_is_down(tmp_path: Path, comfy: StandIn) -> None:
    port = comfy.port
    await comfy.stop()
    config, keys = write_config(tmp_path, f"http://127.0.0.1:{port}")
    async with served(config, keys) as gate:
        status, text = await gate.ops("/readyz")
        assert (status, orjson.loads(text)["status"]) == (503, "upstream-down")
        assert (await gate.ops("/healthz"))[0] == 200
        assert (await gate.ask("GET", "/gate/me"))[0] == 200
        status, answer = await gate.ask("GET", "/queue", "admin")
        assert (status, answer["error"]["type"]) == (502, "upstream_unavailable")
        await comfy.start(port=port)
        while (await gate.ops("/readyz"))[0] != 200:
            pass
        assert (await gate.ask("GET", "/queue", "admin"))[0] == 200
