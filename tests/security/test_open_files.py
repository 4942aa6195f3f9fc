"""The system lets a process open so many files. Whoever opens connections uses up no more of them than the gate can spare."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy import open_files
from tests.commands.served import GUARD_S, served
from tests.harness import write_config
from tests.proxy.upstreams import comfy_like
from tests.security.test_connections import nothing
from tests.wire.raw import connect

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
SOFT = 400
MANY = 500
PERMIT = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))"


@pytest.mark.parametrize("hard", [SOFT, 4 * SOFT])
async def test_a_stranger_with_more_connections_than_there_may_be_files_shuts_nobody_out(
    hard: int, tmp_path: Path
) -> None:
    taken = min(MANY, (hard - open_files.OWN_FILES) // open_files.FILES_EACH)
    async with comfy_like(nothing) as url, asyncio.timeout(GUARD_S):
        config, keys = write_config(tmp_path, url)
        async with served(config, keys, before=PERMIT.format(soft=SOFT, hard=hard)) as gate:
            said = await gate.process.said("lets the gate open")
            assert f"takes {(hard - open_files.OWN_FILES) // open_files.FILES_EACH} connections" in said
            with ExitStack() as held:
                opened = []
                for _ in range(MANY):
                    reader, writer = await connect(gate.url)
                    held.callback(writer.transport.abort)
                    opened.append((reader, writer))
                for path in ("/users", "/gate/me", "/gate/health"):
                    status, _ = await gate.ask("GET", path)
                    assert status == 200
                assert await gate.metric("process_open_fds") >= taken


def test_what_there_is_room_for_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    assert open_files.connections_for(10) == 10
    assert not caplog.records
