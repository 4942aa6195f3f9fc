"""Open WebUI, whole: its image engine paints through the native API, and functions are tools of its models."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.applications.installed import OPEN_WEBUI, open_webui_binaries
from tests.applications.world import answers, gate_with_functions, program, run
from tests.clients.record import record
from tests.clients.runs import upstream_of
from tests.harness import Running
from tests.ports import free_port
from tests.proxy.functions.calls import Caller

pytestmark = pytest.mark.timeout(4000)
PROGRAM = Path(__file__).parent / "programs" / "open_webui_tool.py"
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 65280}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "webui"}},
}
NODES = [{"type": name, "node_ids": ["1"], "key": name} for name in ("width", "height")]
SETTINGS = {
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "RAG_EMBEDDING_ENGINE": "openai",  # no model of its own
    "WEBUI_SECRET_KEY": "of this test",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
    "ENABLE_OLLAMA_API": "false",
    "ENABLE_OPENAI_API": "false",
    "ENABLE_VERSION_UPDATE_CHECK": "false",
}


async def told(gate: Running, method: str, url: str, token: str = "", body: Any = None) -> bytes:
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {})
    async with gate.session.request(method, url, headers=headers, json=body) as response:
        answer = await response.read()
        assert response.status == 200, answer
        return answer


async def test_its_image_engine_paints(target: str, tmp_path: Path, desk: Path) -> None:
    binaries = await asyncio.to_thread(open_webui_binaries)
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    async with gate_with_functions(target, tmp_path / "gate") as gate:
        before = len(await gate.json("GET", "/history", "alice"))
        images = {
            "ENABLE_IMAGE_GENERATION": "true",
            "IMAGE_GENERATION_ENGINE": "comfyui",
            "COMFYUI_BASE_URL": gate.url,
            "COMFYUI_API_KEY": gate.keys["alice"],
            "COMFYUI_WORKFLOW": json.dumps(GRAPH),
            "COMFYUI_WORKFLOW_NODES": json.dumps(NODES),
        }
        serve = (str(binaries / "open-webui"), "serve", "--host", "127.0.0.1", "--port", str(port))
        async with program(desk, {**SETTINGS, **images, "DATA_DIR": str(desk)}, *serve) as process:
            await answers(gate, process, f"{here}/health")
            person = {"name": "a", "email": "a@example.com", "password": "of-This-test-1"}
            token = json.loads(await told(gate, "POST", f"{here}/api/v1/auths/signup", body=person))["token"]
            wish = {"prompt": "green", "size": "128x128", "n": 1}
            (made,) = json.loads(await told(gate, "POST", f"{here}/api/v1/images/generations", token, wish))
            shown = Image.open(io.BytesIO(await told(gate, "GET", here + made["url"], token))).convert("RGB")
            assert (shown.size, shown.getpixel((3, 3))) == ((128, 128), (0, 255, 0))
            connection: dict[str, Any] = {
                "url": gate.url,
                "path": "gate/openapi.json",
                "type": "openapi",
                "auth_type": "bearer",
            }
            connection |= {"key": gate.keys["alice"], "config": {"enable": True}}
            verified = await told(gate, "POST", f"{here}/api/v1/configs/tool_servers/verify", token, connection)
            assert "/gate/run/paint" in json.loads(verified)["paths"]
        assert len(await gate.json("GET", "/history", "alice")) == before + 1
        what = "its image engine paints a picture; it takes the gate for a tool server"
        record(client="Open WebUI", version=OPEN_WEBUI, upstream=await upstream_of(gate), what=what)


async def test_functions_are_tools(target: str, tmp_path: Path, desk: Path) -> None:
    binaries = await asyncio.to_thread(open_webui_binaries)
    async with gate_with_functions(target, tmp_path / "gate") as gate:
        environment = {**SETTINGS, "DATA_DIR": str(desk), "FROM_INIT_PY": "true"}
        environment |= {"GATE": gate.url, "KEY": gate.keys["alice"]}
        said = await run(desk, environment, str(binaries / "python"), str(PROGRAM))
        found = json.loads(said.splitlines()[-1])
        assert found["tool"]["description"].startswith("Paint.")
        assert "color" in found["tool"]["parameters"]["properties"]
        assert found["job"]["status"] == "succeeded"
        assert "argument_refused" in found["refused"]["error"]
        job = (await Caller(gate).ask("GET", "/api/v2/jobs")).body["jobs"][0]
        assert job["metadata"]["function"] == "paint"
        what = "a function is a tool: its own code reads the document, calls it and asks for its job"
        record(client="Open WebUI", version=OPEN_WEBUI, upstream=await upstream_of(gate), what=what)
