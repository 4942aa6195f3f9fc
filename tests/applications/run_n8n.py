"""n8n, whole: its HTTP Request node calls a function, waits for it and gets the picture; its Webhook node is told of the end of a job."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.applications.installed import N8N, n8n_command
from tests.applications.world import answers, gate_with_functions, program, run
from tests.clients.record import record
from tests.clients.runs import upstream_of
from tests.harness import Running
from tests.ports import free_port
from tests.postgres import PostgresServer, running_postgres
from tests.proxy.functions.calls import Caller
from tests.proxy.webhooks.receiver import Receiver

pytestmark = pytest.mark.timeout(4000)
HEADER_AUTH = {"id": "gatekey000000001", "name": "comfygate"}
BLUE = 255
LIMIT_S = 120.0


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


def request_node(name: str, url: str, **parameters: Any) -> dict[str, Any]:
    """An HTTP Request node with *Header Auth*, as its form fills it in."""
    auth = {"authentication": "genericCredentialType", "genericAuthType": "httpHeaderAuth"}
    return node(
        name, "httpRequest", 4.2, {"url": url, **auth, **parameters}, credentials={"httpHeaderAuth": HEADER_AUTH}
    )


def node(name: str, kind: str, version: float, parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    place = {"id": name.lower(), "position": [0, 0]}
    return {
        "name": name,
        "type": f"n8n-nodes-base.{kind}",
        "typeVersion": version,
        "parameters": parameters,
        **place,
        **more,
    }


def workflow(*nodes: dict[str, Any]) -> dict[str, Any]:
    """One node after the other."""
    links = {
        first["name"]: {"main": [[{"node": second["name"], "type": "main", "index": 0}]]}
        for first, second in itertools.pairwise(nodes)
    }
    more = {"active": False, "settings": {}, "pinData": {}}
    return {"id": "gateflow00000001", "name": "gate", "nodes": list(nodes), "connections": links, **more}


PICTURE = {"options": {"response": {"response": {"responseFormat": "file"}}}}


class Desk:
    """An n8n of its own, with one workflow."""

    def __init__(self, folder: Path, gate: Running, database: PostgresServer) -> None:
        self.folder = folder
        self.node, self.n8n = n8n_command()
        self.port = free_port()
        self.key = gate.keys["alice"]
        self.environment = {
            "N8N_USER_FOLDER": str(folder),
            "N8N_ENCRYPTION_KEY": "of this test",
            "N8N_LISTEN_ADDRESS": "127.0.0.1",
            "N8N_PORT": str(self.port),
            "N8N_DIAGNOSTICS_ENABLED": "false",
            "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
            "N8N_TEMPLATES_ENABLED": "false",
            "N8N_RUNNERS_ENABLED": "false",
            "DB_TYPE": "postgresdb",
            "DB_POSTGRESDB_HOST": "127.0.0.1",
            "DB_POSTGRESDB_PORT": str(database.port),
            "DB_POSTGRESDB_USER": "gate",
            "DB_POSTGRESDB_PASSWORD": "none",
            "DB_POSTGRESDB_DATABASE": "postgres",
        }

    async def prepare(self, flow: dict[str, Any]) -> None:
        key = {**HEADER_AUTH, "type": "httpHeaderAuth", "data": {"name": "X-API-Key", "value": self.key}}
        for kind, document in (("credentials", key), ("workflow", flow)):
            (self.folder / f"{kind}.json").write_text(json.dumps([document]), encoding="utf-8")
            await self.run(f"import:{kind}", f"--input={self.folder / kind}.json")

    async def run(self, *command: str) -> str:
        return await run(self.folder, self.environment, self.node, self.n8n, *command)

    def pictures(self) -> list[Image.Image]:
        """What it keeps of files."""
        found = [each.read_bytes() for each in self.folder.rglob("binary_data/*") if each.is_file()]
        return [Image.open(io.BytesIO(data)).convert("RGB") for data in found if data.startswith(b"\x89PNG")]


async def test_its_http_request_node_calls_a_function(
    target: str, tmp_path: Path, desk: Path, database: PostgresServer
) -> None:
    async with gate_with_functions(target, tmp_path / "gate") as gate:
        wait = {"sendHeaders": True, "headerParameters": {"parameters": [{"name": "Prefer", "value": "wait=60"}]}}
        body = {"method": "POST", "sendBody": True, "specifyBody": "json", "jsonBody": json.dumps({"color": BLUE})}
        flow = workflow(
            node("Start", "manualTrigger", 1, {}),
            request_node("Call", f"{gate.url}/gate/run/paint", **body, **wait),
            request_node("Picture", "={{ $json.outputs[0].url }}", **PICTURE),
        )
        n8n = await asyncio.to_thread(Desk, desk, gate, database)
        await n8n.prepare(flow)
        await n8n.run("execute", f"--id={flow['id']}")
        assert {shown.getpixel((3, 3)) for shown in n8n.pictures()} == {(0, 0, BLUE)}
        job = (await Caller(gate).ask("GET", "/api/v2/jobs")).body["jobs"][0]
        assert (job["status"], job["metadata"]["function"]) == ("succeeded", "paint")
        what = "its HTTP Request node calls a function, waits for it and gets the picture"
        record(client="n8n", version=N8N, upstream=await upstream_of(gate), what=what)


async def test_its_webhook_node_is_told_of_the_end(
    target: str, tmp_path: Path, desk: Path, database: PostgresServer
) -> None:
    receiver = Receiver()
    (tmp_path / "gate").mkdir()
    receiver.url = "http://127.0.0.1:1"  # until n8n has a port
    table = receiver.endpoint(tmp_path / "gate", "n8n")
    port = free_port()
    table = table.replace("http://127.0.0.1:1/n8n", f"http://127.0.0.1:{port}/webhook/n8n")
    async with gate_with_functions(target, tmp_path / "gate", table) as gate:
        hook = {
            "httpMethod": "POST",
            "path": "n8n",
            "responseMode": "lastNode",
            "responseData": "noData",
            "options": {},
        }
        flow = workflow(
            node("Told", "webhook", 2, hook, webhookId="6f1c1f8e-3b0a-4f0e-9a53-0d9d7f0a2f11"),
            request_node("Picture", f"{gate.url}/gate/jobs/{{{{ $json.body.data.id }}}}/outputs/picture", **PICTURE),
        )
        flow["nodes"][1]["parameters"]["url"] = "=" + flow["nodes"][1]["parameters"]["url"]
        n8n = await asyncio.to_thread(Desk, desk, gate, database)
        n8n.environment["N8N_PORT"] = str(port)
        await n8n.prepare(flow)
        await n8n.run("publish:workflow", f"--id={flow['id']}")
        async with program(desk, n8n.environment, n8n.node, n8n.n8n, "start") as process:
            await answers(gate, process, f"http://127.0.0.1:{port}/healthz/readiness")
            called = await Caller(gate).run("paint", {"color": BLUE})
            assert called.status == 202, called.raw
            async with asyncio.timeout(LIMIT_S):
                while not n8n.pictures():
                    await asyncio.sleep(0.5)
        assert n8n.pictures()[0].getpixel((3, 3)) == (0, 0, BLUE)
        what = "its Webhook node is told of the end of a job, and gets the picture"
        record(client="n8n", version=N8N, upstream=await upstream_of(gate), what=what)
