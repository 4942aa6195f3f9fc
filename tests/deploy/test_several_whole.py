"""What is shipped for several gates and ComfyUIs, running: two gates by its configuration, PostgreSQL, its nginx, two ComfyUIs."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from proxy.app import Gate
from proxy.auth import key_file
from proxy.config import load_config
from proxy.observability.access_log import RequestLog
from standin import StandIn
from tests.deploy.files import DEPLOY
from tests.deploy.nginx import balanced
from tests.programs import needs
from tests.several.world import put_model

CONFIG = (DEPLOY / "docker" / "several" / "config.toml").read_text(encoding="utf-8")
WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "whole"}},
}
ONLY_AT_THE_SECOND = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "only.safetensors"}},
    "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "whole"}},
}
CLIENTS = [f"203.0.113.{number}" for number in range(1, 20)]


def config_for(folder: Path, comfyuis: list[StandIn], postgres_url: str) -> Path:
    """The shipped one, with this machine's addresses and files in the place of the containers'."""
    (folder / "postgres_url").write_text(postgres_url, encoding="utf-8")
    (folder / "session_secret").write_text("s" * 64, encoding="utf-8")
    replaced = {
        'host = "0.0.0.0"': 'host = "127.0.0.1"',
        "port = 8190": "port = 0",
        "port = 9190": "port = 0",
        "172.30.191.10/32": "127.0.0.1/32",
        "http://comfyui-1:8188": comfyuis[0].url,
        "http://comfyui-2:8188": comfyuis[1].url,
        "/run/secrets": str(folder),
        "redis://redis:6379/0": "memory",
    }
    text = CONFIG
    for shipped, here in replaced.items():
        assert shipped in text, shipped
        text = text.replace(shipped, here)
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return file


@asynccontextmanager
async def running(file: Path, state: Path) -> AsyncIterator[Gate]:
    config = load_config(file, {})
    own = config.model_copy(update={"server": config.server.model_copy(update={"state_dir": state})})
    gate = Gate(own, RequestLog(io.BytesIO(), "json"))
    await gate.start()
    try:
        await gate.dependencies.queue_watchers.first.is_settled.wait()
        yield gate
    finally:
        await gate.stop()


@dataclass
class Caller:
    """A client at an address of its own, as Cloudflare names it."""

    session: aiohttp.ClientSession
    base: str
    headers: dict[str, str]

    async def json(self, method: str, path: str, client: str, **more: Any) -> Any:
        headers = self.headers | {"CF-Connecting-IP": client}
        async with self.session.request(method, f"{self.base}{path}", headers=headers, **more) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def run(self, client: str, workflow: dict[str, Any] = WORKFLOW) -> str:
        """A job from its submission to its end, which the client's WebSocket tells. Returns its id."""
        headers = self.headers | {"CF-Connecting-IP": client}
        async with self.session.ws_connect(f"{self.base}/ws?clientId=tab-{client}", headers=headers) as events:
            body = {"prompt": workflow, "client_id": f"tab-{client}"}
            prompt_id = str((await self.json("POST", "/prompt", client, json=body))["prompt_id"])
            async with asyncio.timeout(240):
                async for message in events:
                    if message.type is aiohttp.WSMsgType.TEXT and '"execution_success"' in message.data:
                        return prompt_id
        raise AssertionError("the WebSocket ended before the job")

    async def pictures(self, client: str, prompt_id: str) -> list[dict[str, str]]:
        """What a job saved; each is looked at."""
        (entry,) = (await self.json("GET", f"/history/{prompt_id}", client)).values()
        images = [image for output in entry["outputs"].values() for image in output["images"]]
        for image in images:
            headers = self.headers | {"CF-Connecting-IP": client}
            async with self.session.get(f"{self.base}/view", params=image, headers=headers) as response:
                assert (response.status, response.content_type) == (200, "image/png")
        return images

    async def sees(self, client: str, jobs: list[str]) -> None:
        """What another gate has seen to its end, a gate tells in the next moment."""
        async with asyncio.timeout(240):
            while set(await self.json("GET", "/history", client)) != set(jobs):
                await asyncio.sleep(0.05)


@needs("nginx", "pg_config")
async def test_gates_are_one_to_their_clients(tmp_path: Path, postgres_url: str) -> None:
    async with AsyncExitStack() as stack:
        comfyuis = [StandIn(tmp_path / name, frontend=False) for name in ("gpu-1", "gpu-2")]
        put_model(comfyuis[1], "only.safetensors")
        for comfyui in comfyuis:
            await comfyui.start()
            stack.push_async_callback(comfyui.stop)
        file = config_for(tmp_path, comfyuis, postgres_url)
        headers = {"X-API-Key": key_file.create_key(file, tenant="acme").text}
        first = await stack.enter_async_context(AsyncExitStack())
        gates = [
            await first.enter_async_context(running(file, tmp_path / "state-1")),
            await stack.enter_async_context(running(file, tmp_path / "state-2")),
        ]
        places = [gate.public.url.removeprefix("http://") for gate in gates]
        base, _ = await stack.enter_async_context(balanced(tmp_path, places))
        caller = Caller(await stack.enter_async_context(aiohttp.ClientSession()), base, headers)

        ran = [await caller.run(client) for client in CLIENTS[:6]]
        ran += [at_second := await caller.run(CLIENTS[6], ONLY_AT_THE_SECOND)]
        for client in CLIENTS:  # at both gates
            await caller.sees(client, ran)
            (picture,) = await caller.pictures(client, at_second)
            assert picture["subfolder"] == "@gpu-2"

        await first.aclose()
        ran.append(await caller.run(CLIENTS[0]))
        for client in CLIENTS:
            await caller.sees(client, ran)
