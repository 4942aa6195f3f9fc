"""The receivers of docs/webhooks.md, as they stand there, are told of a job and take nothing that is not signed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from standin import StandIn
from tests.clients.examples import PAGE, read_examples
from tests.clients.installed import node_client_folder
from tests.clients.typescript import strip
from tests.contract.driver import saving, unique
from tests.faults.programs import listens
from tests.harness import running_gate
from tests.ports import free_port
from tests.programs import path_of
from tests.proxy.v2.asking import submitted
from tests.proxy.webhooks.receiver import Receiver

EXAMPLES = read_examples(PAGE.with_name("webhooks.md"))
LIMIT_S = 240.0


@asynccontextmanager
async def told(folder: Path, comfy: StandIn, *command: str) -> AsyncIterator[tuple[asyncio.StreamReader, str]]:
    """What a receiver prints, and the id of a job that it is told of."""
    receiver = Receiver()
    port = free_port()
    receiver.url = f"http://127.0.0.1:{port}"
    table = receiver.endpoint(folder, "shop")
    environment = {**os.environ, "PORT": str(port), "WEBHOOK_SECRET": receiver.secrets["/shop"]}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            while not await listens(port):
                assert process.returncode is None
                await asyncio.sleep(0.05)
            async with aiohttp.ClientSession() as session:
                forged = {"webhook-id": "a", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
                async with session.post(receiver.url, data=b"{}", headers=forged) as response:
                    assert response.status == 401
            async with running_gate(folder, comfy.url, more=table) as gate:
                yield process.stdout, await submitted(gate, saving(unique()))
    finally:
        process.kill()
        await process.wait()


async def test_the_python_receiver_is_told_of_a_job(tmp_path: Path, comfy: StandIn) -> None:
    (tmp_path / "receiver.py").write_text(EXAMPLES["receiver.py"], "utf-8")
    async with told(tmp_path, comfy, sys.executable, "receiver.py") as (said, job):
        assert await said.readline() == f"job.succeeded {job}\n".encode()


@pytest.mark.timeout(900)
async def test_the_typescript_receiver_is_told_of_a_job(tmp_path: Path, comfy: StandIn) -> None:
    node, _ = path_of("node"), path_of("npm")
    library = await asyncio.to_thread(node_client_folder, "standardwebhooks", "1.1.1")
    (tmp_path / "receiver.ts").write_text(EXAMPLES["receiver.ts"], "utf-8")
    await strip(node, tmp_path / "receiver.ts", tmp_path / "receiver.mjs")
    (tmp_path / "node_modules").symlink_to(library / "node_modules")
    async with told(tmp_path, comfy, node, "receiver.mjs") as (said, job):
        assert await said.readline() == f"job.succeeded {job}\n".encode()
