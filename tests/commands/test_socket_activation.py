"""The gate on a socket of its service manager's: clients that wait for their jobs notice no restart, and nothing of a reload."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import orjson
import pytest

from proxy.commands.exits import Exit
from standin import StandIn
from tests.commands.restarts import all_ask, bound, configured, job_of, managed, polling, started_on
from tests.commands.served import COMMAND, GUARD_S
from tests.programs import needs, path_of
from tests.wire.raw import request, send

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sockets that are passed")
RESTARTS = 3


async def test_no_restart_breaks_a_request(tmp_path: Path, comfy: StandIn) -> None:
    with bound() as listening:
        config, keys = configured(tmp_path, comfy.url, listening, shutdown_grace="30s")
        async with managed(config, listening) as manager:
            path = await job_of(manager, keys["alice"])
            with polling(manager.port, path, keys["alice"]) as pollers:
                for _ in range(RESTARTS):
                    await all_ask(pollers)
                    await manager.restart(signal.SIGTERM)
                await all_ask(pollers)
    assert [each.broken for each in pollers] == [[]] * len(pollers)
    assert {status for each in pollers for status in each.statuses} == {200}
    kept = pollers[: len(pollers) // 2]
    assert all(each.connections < len(each.statuses) for each in kept)
    assert not [line for line in manager.lines if "they are cut off" in line]


async def test_a_gate_that_is_killed_breaks_what_it_was_answering_and_no_more(tmp_path: Path, comfy: StandIn) -> None:
    kills = []
    with bound() as listening:
        config, keys = configured(tmp_path, comfy.url, listening)
        async with managed(config, listening) as manager:
            path = await job_of(manager, keys["alice"])
            with polling(manager.port, path, keys["alice"], looks=True) as pollers:
                for _ in range(RESTARTS):
                    await all_ask(pollers)
                    kills.append(await manager.restart(signal.SIGKILL))
                await all_ask(pollers)
    assert {status for each in pollers for status in each.statuses} == {200}
    for poller in pollers:
        assert len(poller.broken) <= RESTARTS
        for broken in poller.broken:
            assert not isinstance(broken.error, ConnectionRefusedError)
            assert [kill for kill in kills if broken.was_under_way(kill)]


async def test_no_reload_breaks_a_connection(tmp_path: Path, comfy: StandIn) -> None:
    with bound() as listening:
        config, keys = configured(tmp_path, comfy.url, listening)
        async with managed(config, listening) as manager:
            path = await job_of(manager, keys["alice"])
            with polling(manager.port, path, keys["alice"]) as pollers:
                for number in range(1, RESTARTS + 1):
                    await all_ask(pollers)
                    manager.life.process.send_signal(signal.SIGHUP)
                    await manager.life.said("configuration reloaded", times=2 * number - 1)
                    text = config.read_text(encoding="utf-8")
                    config.write_text(f"{text}# changed\n", encoding="utf-8")
                    await manager.life.said("configuration reloaded", times=2 * number)
                await all_ask(pollers)
    assert [each.broken for each in pollers] == [[]] * len(pollers)
    assert {status for each in pollers for status in each.statuses} == {200}
    assert [each.connections for each in pollers[: len(pollers) // 2]] == [1] * (len(pollers) // 2)


async def test_a_socket_elsewhere_than_configured_is_refused(tmp_path: Path, comfy: StandIn) -> None:
    with bound() as listening, bound() as other:
        config, _ = configured(tmp_path, comfy.url, other)
        process = await started_on(listening, config)
        async with asyncio.timeout(GUARD_S):
            assert await process.ended() == Exit.MISTAKE
            assert "let them and ListenStream= of the .socket unit say the same" in await process.said("server.port")
            assert process.listening is not None
            await process.listening


async def test_check_says_what_the_gate_would(tmp_path: Path, comfy: StandIn) -> None:
    with bound() as listening, bound() as other:
        config, _ = configured(tmp_path, comfy.url, listening)
        for passed, code, words in (
            (other, Exit.MISTAKE, "let them and ListenStream= of the .socket unit say the same"),
            (listening, Exit.OK, ""),
        ):
            process = await started_on(passed, config, "check")
            async with asyncio.timeout(GUARD_S):
                assert await process.ended() == code
                assert process.listening is not None
                await process.listening
            assert words in "".join(process.lines)


@needs("systemd-socket-activate")
async def test_systemd_passes_the_socket(tmp_path: Path, comfy: StandIn) -> None:
    """Started by the first connection, which waits for its answer."""
    with bound() as free:
        config, _ = configured(tmp_path, comfy.url, free)
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        path_of("systemd-socket-activate"), f"--listen=127.0.0.1:{port}", "--fdname=public",
        sys.executable, "-c", COMMAND, "serve", "--config", str(config),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(GUARD_S):
            assert process.stderr is not None
            assert b"Listening on" in await process.stderr.readline()
            answer = await send(f"http://127.0.0.1:{port}", request("/gate/health", None))
            assert answer.status == 200
            process.send_signal(signal.SIGTERM)
            said = await process.stderr.read()
            assert await process.wait() == Exit.OK
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = [orjson.loads(line) for line in said.splitlines() if line.startswith(b"{")]
    assert [line for line in lines if "the service manager's socket" in line.get("message", "")]
