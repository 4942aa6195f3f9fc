"""A gate that is killed while it converts: what is served is whole, whatever was being made, and nothing of it stays on the disk."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from blake3 import blake3
from PIL import Image

from proxy.conversion.kept_files import DRAFT, LEFT_S
from standin import StandIn
from tests.faults.programs import GateProcess
from tests.harness import write_config
from tests.proxy.copies.forming import TENANTS, write_paint

ROUNDS = int(os.environ.get("CONVERSION_ROUNDS", "3"))
"""`CONVERSION_ROUNDS=30 python -m pytest tests/faults/test_conversions.py` plays more."""
GUARD_S = 240.0


class Player:
    """Calls a function of a gate that is killed, and looks into its folder."""

    def __init__(self, gate: GateProcess, session: aiohttp.ClientSession, key: str, folder: Path) -> None:
        self._gate = gate
        self._session = session
        self._headers = {"Authorization": f"Bearer {key}"}
        self._folder = folder

    async def start(self) -> None:
        await self._gate.start()
        await self._gate.is_up()

    async def call(self, color: int) -> str:
        async with self._session.post(
            f"{self._gate.url}/gate/run/paint", json={"color": color, "width": 512}, headers=self._headers
        ) as answer:
            assert answer.status == 202, await answer.text()
            return str((await answer.json())["id"])

    async def job(self, prompt_id: str) -> Any:
        async with self._session.get(f"{self._gate.url}/gate/jobs/{prompt_id}", headers=self._headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def converted(self, prompt_id: str) -> bytes:
        async with asyncio.timeout(GUARD_S):
            while True:
                self._gate.check()
                path = f"/gate/jobs/{prompt_id}/outputs/picture"
                async with self._session.get(f"{self._gate.url}{path}", headers=self._headers) as answer:
                    body = await answer.read()
                    if answer.status == 200:
                        return body
                    assert answer.status in (404, 429), body
                await asyncio.sleep(0.01)

    async def killed_while_it_makes(self, prompt_id: str) -> None:
        """As soon as there is a draft that was not there before."""
        before = set(self.drafts())
        asking = asyncio.create_task(self.converted(prompt_id))
        async with asyncio.timeout(GUARD_S):
            while not set(self.drafts()) - before and not asking.done():
                await asyncio.sleep(0.001)
        await self._gate.kill()
        await asyncio.gather(asking, return_exceptions=True)

    def drafts(self) -> list[Path]:
        return list(self._folder.glob(f"*/*{DRAFT}"))

    def kept(self) -> list[Path]:
        return [path for path in self._folder.glob("*/*") if not path.name.endswith(DRAFT)]

    def age_drafts(self) -> None:
        for draft in self.drafts():
            found = draft.stat()
            os.utime(draft, (found.st_atime, found.st_mtime - LEFT_S - 1))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_seen", [True, False], ids=["seen", "fetched"])
async def test_what_a_gate_was_making_when_it_was_killed_is_served_whole_or_not_at_all(
    tmp_path: Path, comfy: StandIn, is_seen: bool
) -> None:
    gate, folder = GateProcess("gate", tmp_path), tmp_path / "gate"
    folder.mkdir()
    write_paint(folder, 'convert = "avif"\n')
    seen = f'directory = "{tmp_path / "comfyui"}"' if is_seen else ""
    config, keys = write_config(folder, comfy.url, upstream_more=seen, tenants=TENANTS)
    config.write_text(config.read_text().replace("port = 0", f"port = {gate.port}", 1))
    async with aiohttp.ClientSession() as session:
        player = Player(gate, session, keys["alice"], folder / "state" / "converted")
        jobs = []
        try:
            for number in range(ROUNDS):
                await player.start()
                jobs.append(await player.call(number))
                await player.killed_while_it_makes(jobs[-1])
            await player.start()
            for each in jobs:
                given = await player.converted(each)
                [output] = (await player.job(each))["outputs"]
                assert output["hash"] == f"blake3:{blake3(given).hexdigest()}"
                with Image.open(io.BytesIO(given)) as picture:
                    picture.load()
                    assert (picture.format, picture.size[0]) == ("AVIF", 512)
            for file in player.kept():
                assert blake3(file.read_bytes()).hexdigest() in file.name
            await gate.kill()
            player.age_drafts()
            await player.start()
            await player.converted(jobs[0])
            assert player.drafts() == []
            assert len(player.kept()) == len(jobs)
        finally:
            await gate.kill()
