"""Emptied files, other methods, pages that cost, uploads that break off."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import orjson
import pytest

from proxy.app import Gate
from proxy.auth import key_file
from proxy.auth.jwks import Jwks
from proxy.config import load_config
from proxy.observability.access_log import RequestLog
from standin import StandIn
from tests.harness import Running, running_gate, write_config


async def test_a_file_that_is_just_being_written_changes_nothing(gate: Running) -> None:
    text = gate.config_file.read_text(encoding="utf-8")
    for half in ("", "# written by a program\n", text[: text.index("[tenants.alice]")]):
        gate.config_file.write_text(half, encoding="utf-8")
        assert not await gate.gate.reload(gate.config_file)
        assert await gate.status("GET", "/queue", "alice") == 200
    gate.config_file.write_text(text, encoding="utf-8")
    assert await gate.gate.reload(gate.config_file)
    records = (gate.config_file.parent / "audit.jsonl").read_text(encoding="utf-8")
    assert records.count("has no tenant and no key any more") == 3


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/queue", "GET, HEAD, POST"),
        ("DELETE", "/api/queue", "GET, HEAD, POST"),
        ("DELETE", "/history/x", "GET, HEAD"),
        ("PUT", "/prompt", "GET, HEAD, POST"),
        ("GET", "/interrupt", "POST"),
    ],
)
async def test_other_methods_are_405_with_allow(gate: Running, method: str, path: str, allowed: str) -> None:
    async with gate.call(method, path, "alice") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, allowed)
        assert (await answer.json())["error"]["type"] == "method_not_allowed"


async def test_a_path_that_nobody_knows_is_404(gate: Running) -> None:
    for method in ("DELETE", "POST"):
        assert await gate.status(method, "/nowhere/at-all", "alice") == 404


async def test_the_gates_own_pages_cost_what_calls_cost(tmp_path: Path, comfy: StandIn) -> None:
    more = '[limits.three]\nrequests = "3/minute"\n[tenants.narrow]\nlimits = "three"\n'
    async with running_gate(tmp_path, comfy.url, more=more) as gate:
        key = key_file.create_key(gate.config_file, tenant="narrow").text
        assert await gate.gate.reload(gate.config_file)
        headers = {"X-API-Key": key}
        statuses = [
            await gate.status("GET", path, None, headers=headers) for path in ("/gate/me", "/gate/no", "/gate/me")
        ]
        assert statuses == [200, 404, 200]
        for path in ("/gate/me", "/gate/no"):
            assert await gate.status("GET", path, None, headers=headers) == 429


async def test_what_came_of_a_refused_upload_is_counted(gate: Running) -> None:
    form = aiohttp.FormData()
    form.add_field("image", b"<svg xmlns='http://www.w3.org/2000/svg'/>" + bytes(5000), filename="x.png")
    assert await gate.status("POST", "/upload/image", "alice", data=form) == 403
    (line,) = [
        line for line in map(orjson.loads, gate.log.getvalue().splitlines()) if line["route"] == "POST /upload/image"
    ]
    assert line["received_bytes"] > 1000


async def test_a_gate_that_cannot_start_undoes_itself(
    tmp_path: Path, comfy: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = '[jwt.idp]\nissuer = "https://idp.example"\naudience = "x"\njwks_url = "http://127.0.0.1:1/keys"\n'
    file, _ = write_config(tmp_path, comfy.url, more=more)

    async def fail(self: Jwks) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(Jwks, "start", fail)
    with open(tmp_path / "log", "wb") as log:
        gate = Gate(load_config(file, {}), RequestLog(log, "json"))
        before = asyncio.all_tasks()
        with pytest.raises(RuntimeError, match="no"):
            await gate.start()
        assert asyncio.all_tasks() == before
        with pytest.raises(OSError, match=r"refused|Connect"):
            await asyncio.open_connection("127.0.0.1", gate.public.port or 1)
