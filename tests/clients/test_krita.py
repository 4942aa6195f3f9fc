"""Krita AI Diffusion, request by request as its plugin sends them, through `comfygate connect`: on the stand-in with the routes of its tooling nodes,
and on a real ComfyUI that has them."""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from standin import StandIn
from tests.clients.record import record
from tests.clients.runs import TARGETS, upstream_of
from tests.contract.conftest import REAL_URL
from tests.contract.driver import node
from tests.harness import Running, running_gate
from tests.pack.krita import make_tooling_nodes
from tests.proxy.commands.test_connect_proxy import forwarding

COLOUR = (10, 120, 200)


@pytest.fixture(params=TARGETS)
async def gate(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        url = REAL_URL
        if request.param != "real":
            comfy = StandIn(tmp_path / "comfyui", frontend=False, pack=make_tooling_nodes())
            await comfy.start()
            stack.push_async_callback(comfy.stop)
            url = comfy.url
        running = await stack.enter_async_context(running_gate(tmp_path, url, upstream_more='packs = ["krita"]\n'))
        text = running.config_file.read_text(encoding="utf-8")
        running.config_file.write_text(text.replace('"GatePack*"', '"ETN_*"'), encoding="utf-8")
        assert await running.gate.reload(running.config_file)
        if await running.status("GET", "/api/etn/languages", "admin") != 200:
            pytest.skip("this ComfyUI has not the tooling nodes of Krita AI Diffusion")
        yield running


def picture() -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (64, 48), COLOUR).save(target, "PNG")
    return target.getvalue()


class Plugin:
    """What the plugin does of itself: its calls have a bearer token where one is set; here `connect` adds the key."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url, self.client_id = session, url, str(uuid.uuid4())

    async def get(self, path: str) -> Any:
        async with self.session.get(f"{self.url}/{path}") as answer:
            assert answer.status == 200, f"{path}: {answer.status} {await answer.text()}"
            return await answer.json() if answer.content_type == "application/json" else await answer.read()

    async def post(self, path: str, document: Any) -> tuple[int, str]:
        async with self.session.post(f"{self.url}/{path}", json=document) as answer:
            return answer.status, await answer.text()

    async def put(self, key: str, data: bytes) -> int:
        headers = {"Content-Type": "application/octet-stream"}
        async with self.session.put(f"{self.url}/api/etn/image/{key}", data=data, headers=headers) as answer:
            return answer.status

    async def connect(self) -> None:
        """The test of the connection: the socket is opened once and closed, and opened again under the same id when the plugin listens."""
        await self.get("system_stats")
        async with self.session.ws_connect(f"{self.url}/ws?clientId={self.client_id}"):
            pass
        nodes = await self.get("object_info")
        assert {"ETN_LoadImageCache", "ETN_SaveImageCache"} <= nodes.keys()
        assert isinstance(await self.get("api/etn/languages"), list)

    async def discover(self, folder: str) -> dict[str, Any]:
        """Page by page, as long as the answer says that there is more."""
        found: dict[str, Any] = {}
        offset, total = 0, 1
        while offset < total:
            page = await self.get(f"api/etn/model_info/{folder}?offset={offset}&limit=8")
            total = page.pop("_meta")["total"]
            found |= page
            offset += 8
        return found

    async def run(self, key: str) -> list[bytes]:
        """One job: listens, submits under an id of its own, and fetches what the results name."""
        prompt_id = str(uuid.uuid4())
        graph = {
            "1": node("ETN_LoadImageCache", id=key),
            "2": node("ImageInvert", image=["1", 0]),
            "3": node("ETN_SaveImageCache", images=["2", 0], format="PNG"),
        }
        pictures: list[bytes] = []
        async with self.session.ws_connect(f"{self.url}/ws?clientId={self.client_id}") as socket:
            # The plugin says so in its log, and goes on: it would be sent the workflows of all tenants.
            assert (await self.post("api/etn/workflow/subscribe", {"client_id": self.client_id}))[0] == 403
            document = {"prompt": graph, "client_id": self.client_id, "front": False, "prompt_id": prompt_id}
            status, text = await self.post("prompt", document)
            assert (status, json.loads(text)["prompt_id"]) == (200, prompt_id)
            async for message in socket:
                event: Any = json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else {"type": "binary"}
                if event["type"] == "executed":
                    for shown in event["data"]["output"]["images"]:
                        assert shown["source"] == "http"
                        pictures.append(await self.get(f"api/etn/image/{shown['id']}"))
                if event["type"] == "executing" and event["data"]["node"] is None:
                    break
        return pictures


async def test_the_plugin_finds_what_it_needs_paints_and_fetches(gate: Running) -> None:
    async with forwarding(gate.url, gate.keys["alice"]) as url, aiohttp.ClientSession() as session:
        plugin = Plugin(session, url)
        await plugin.connect()
        for folder in ("checkpoints", "diffusion_models"):
            assert all("base_model" in info for info in (await plugin.discover(folder)).values())
        data = picture()
        key = hashlib.sha256(data + uuid.uuid4().bytes).hexdigest()  # a real one remembers those of earlier runs
        assert await plugin.put(key, data) == 201
        assert await plugin.put(key, data) == 200, "it is there already"
        pictures = await plugin.run(key)
        assert len(pictures) == 1
        shown = Image.open(io.BytesIO(pictures[0])).convert("RGB").getpixel((9, 9))
        assert isinstance(shown, tuple)
        assert all(abs(255 - part - found) <= 1 for part, found in zip(COLOUR, shown, strict=True)), "the node cuts off"
        assert await plugin.post("queue", {"delete": [str(uuid.uuid4())]}) == (200, "")
        assert await plugin.post("interrupt", {}) == (200, "")
    what = "request by request as its plugin sends them, through `comfygate connect`: a picture goes up, is painted on, and comes back"
    record(client="Krita AI Diffusion", version="as written down", upstream=await upstream_of(gate), what=what)


async def test_two_people_have_each_their_own_pictures(gate: Running) -> None:
    """Both send under the same id: the plugin makes it of the picture, and upstream the first bytes stay."""
    async with aiohttp.ClientSession() as session, AsyncExitStack() as stack:
        plugins = [
            Plugin(session, await stack.enter_async_context(forwarding(gate.url, gate.keys[who])))
            for who in ("alice", "mallory")
        ]
        key = uuid.uuid4().hex
        others = io.BytesIO()
        Image.new("RGB", (64, 48), (200, 10, 10)).save(others, "PNG")
        assert await plugins[0].put(key, picture()) == 201
        assert await plugins[1].put(key, others.getvalue()) == 201
        assert await plugins[0].get(f"api/etn/image/{key}") == picture()
        assert await plugins[1].get(f"api/etn/image/{key}") == others.getvalue()
