"""A gate that is killed between the end of a job and its copy, again and again: every file comes to the bucket, once and whole."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from pathlib import Path
from typing import Any

import aiohttp

from standin import StandIn
from tests.contract.driver import saving
from tests.faults.programs import GateProcess
from tests.harness import write_config
from tests.proxy.copies.forming import TENANTS as FORMING_TENANTS
from tests.proxy.copies.forming import WEBP, write_paint
from tests.proxy.copies.s3 import S3Server, s3_server, storage
from tests.proxy.webhooks.receiver import receiving

ROUNDS = int(os.environ.get("COPY_ROUNDS", "4"))
"""`COPY_ROUNDS=20 python -m pytest tests/faults/test_copies.py` plays more."""
GUARD_S = 240.0


async def submitted(session: aiohttp.ClientSession, gate: GateProcess, key: str, number: int) -> str:
    graph = saving(f"round-{number}", number + 1)
    async with session.post(
        f"{gate.url}/api/v2/jobs", json={"workflow": graph}, headers={"Authorization": f"Bearer {key}"}
    ) as answer:
        assert answer.status == 201, await answer.text()
        return str((await answer.json())["id"])


async def job(session: aiohttp.ClientSession, gate: GateProcess, key: str, prompt_id: str) -> Any:
    async with session.get(f"{gate.url}/gate/jobs/{prompt_id}", headers={"Authorization": f"Bearer {key}"}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def ended(session: aiohttp.ClientSession, gate: GateProcess, key: str, prompt_id: str) -> Any:
    async with asyncio.timeout(GUARD_S):
        while (shown := await job(session, gate, key, prompt_id))["completed_at"] is None:
            gate.check()
            await asyncio.sleep(0.005)
    return shown


async def called(session: aiohttp.ClientSession, gate: GateProcess, key: str) -> str:
    """A job of the function that gives its picture as WebP."""
    headers = {"Authorization": f"Bearer {key}"}
    async with session.post(f"{gate.url}/gate/run/paint", json={}, headers=headers) as answer:
        assert answer.status == 202, await answer.text()
        return str((await answer.json())["id"])


async def in_bucket(server: S3Server, jobs: list[str]) -> dict[str, bytes]:
    """By job, when each of them is there."""
    async with asyncio.timeout(GUARD_S):
        while True:
            found = {key.split("/")[3]: data for key, data in server.objects().items() if key.count("/") == 5}
            if found.keys() >= set(jobs):
                return found
            await asyncio.sleep(0.05)


async def test_a_gate_that_is_killed_forgets_no_copy(tmp_path: Path, comfy: StandIn) -> None:
    seed = secrets.randbelow(2**31)
    chance = random.Random(seed)
    async with s3_server(tmp_path / "s3") as server, aiohttp.ClientSession() as session:
        gate = GateProcess("gate", tmp_path)
        (tmp_path / "gate").mkdir()
        section = storage(server, tmp_path / "gate")
        config, keys = write_config(tmp_path / "gate", comfy.url, more=section)
        config.write_text(config.read_text().replace("port = 0", f"port = {gate.port}", 1))
        jobs = []
        try:
            for number in range(ROUNDS):
                await gate.start()
                await gate.is_up()
                jobs.append(await submitted(session, gate, keys["alice"], number))
                await ended(session, gate, keys["alice"], jobs[-1])
                await asyncio.sleep(chance.random() * 0.1)
                await gate.kill()
            await gate.start()
            await gate.is_up()
            found = await in_bucket(server, jobs)
            for each in jobs:
                [output] = (await ended(session, gate, keys["alice"], each))["outputs"]
                headers = {"Authorization": f"Bearer {keys['alice']}"}
                async with session.get(output["url"], headers=headers) as answer:
                    assert await answer.read() == found[each], f"seed {seed}"
                async with asyncio.timeout(GUARD_S):
                    while "link" not in output:
                        [output] = (await job(session, gate, keys["alice"], each))["outputs"]
            assert len([key for key in server.objects() if key.count("/") == 5]) == ROUNDS, f"seed {seed}"
        finally:
            await gate.kill()


async def test_a_gate_that_is_killed_copies_each_form_once(tmp_path: Path, comfy: StandIn) -> None:
    """Before it is known what the job made, while it is converted, while that is copied, and afterwards."""
    seed = secrets.randbelow(2**31)
    chance = random.Random(seed)
    async with s3_server(tmp_path / "s3") as server, receiving() as receiver, aiohttp.ClientSession() as session:
        gate = GateProcess("gate", tmp_path)
        (tmp_path / "gate").mkdir()
        write_paint(tmp_path / "gate", WEBP)
        section = storage(server, tmp_path / "gate")
        section += receiver.endpoint(tmp_path / "gate", "shop", events='["job.stored"]')
        seen = f'directory = "{tmp_path / "comfyui"}"'
        config, keys = write_config(
            tmp_path / "gate", comfy.url, more=section, upstream_more=seen, tenants=FORMING_TENANTS
        )
        config.write_text(config.read_text().replace("port = 0", f"port = {gate.port}", 1))
        jobs = []
        try:
            for _ in range(ROUNDS):
                await gate.start()
                await gate.is_up()
                jobs.append(await called(session, gate, keys["alice"]))
                async with asyncio.timeout(GUARD_S):
                    while not await is_over(session, comfy, jobs[-1]):  # nobody asks the gate, which would convert it
                        await asyncio.sleep(0.005)
                await asyncio.sleep(chance.random() * 0.6)
                await gate.kill()
            await gate.start()
            await gate.is_up()
            for each in jobs:
                output = await linked(session, gate, keys["alice"], each)
                headers = {"Authorization": f"Bearer {keys['alice']}"}
                async with session.get(output["url"], headers=headers) as answer:
                    given = await answer.read()
                async with session.get(output["link"]["url"]) as answer:
                    assert await answer.read() == given, f"seed {seed}"
                assert given[8:12] == b"WEBP", f"seed {seed}"
            names = sorted(key.rpartition(".")[2] for key in server.objects() if key.count("/") == 5)
            assert names == ["png"] * ROUNDS + ["webp"] * ROUNDS, f"seed {seed}"
            got = await receiver.until(lambda got: {each.job for each in got} == set(jobs))
            assert len({each.id for each in got}) == ROUNDS, f"seed {seed}: told again it has the same id"
            assert all(output["forms"] for each in got for output in each.event["data"]["outputs"]), f"seed {seed}"
        finally:
            await gate.kill()


async def is_over(session: aiohttp.ClientSession, comfy: StandIn, prompt_id: str) -> bool:
    async with session.get(f"{comfy.url}/history/{prompt_id}") as answer:
        return prompt_id in await answer.json()


async def linked(session: aiohttp.ClientSession, gate: GateProcess, key: str, prompt_id: str) -> Any:
    """Its output, when it is copied as the function gives it; and the original by then too."""
    async with asyncio.timeout(GUARD_S):
        while True:
            gate.check()
            async with session.get(
                f"{gate.url}/api/v2/jobs/{prompt_id}", headers={"Authorization": f"Bearer {key}"}
            ) as answer:
                [original] = (await answer.json())["outputs"] or [{}]
            [output] = (await job(session, gate, key, prompt_id))["outputs"] or [{}]
            if "link" in output and "link" in original:
                return output
            await asyncio.sleep(0.05)
