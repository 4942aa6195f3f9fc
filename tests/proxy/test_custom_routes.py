"""Routes of custom nodes through a whole gate: closed until they are named, in force with the next request, and counted as what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from standin import StandIn
from tests.harness import Running, running_gate

ROWS = """
[[routes]]
path = "/pack/files/{file...}"
methods = ["GET"]
kind = "static"

[[routes]]
path = "/pack/list"
methods = ["GET"]
kind = "shared-read"

[[routes]]
path = "/pack/reboot"
methods = ["GET", "POST"]
kind = "admin"
note = "it starts ComfyUI anew"

[[routes]]
path = "/pack/disk"
methods = ["GET"]
kind = "never"
note = "it lists the disk"
"""


def asked(comfy: StandIn) -> list[str]:
    return [f"{call.method} {call.raw_path}" for call in comfy.received if "/pack/" in call.raw_path]


@pytest.fixture
async def comfy(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path / "comfyui", frontend=False)


async def test_what_is_not_named_is_closed_to_everybody(tmp_path: Path, comfy: StandIn) -> None:
    await comfy.start()
    async with running_gate(tmp_path, comfy.url) as running:
        for who, status in (("alice", 404), ("admin", 404), (None, 401)):
            for path in ("/pack/files/a.js", "/pack/list", "/rgthree/config.js", "/vhs/getpath"):
                assert await running.status("GET", path, who) == status
    await comfy.stop()
    assert asked(comfy) == []


async def test_a_changed_file_is_in_force_with_the_next_request(tmp_path: Path, comfy: StandIn) -> None:
    await comfy.start()
    async with running_gate(tmp_path, comfy.url) as running:
        text = running.config_file.read_text(encoding="utf-8")
        assert await running.status("GET", "/pack/list", "alice") == 404
        assert asked(comfy) == []
        running.config_file.write_text(text + ROWS, encoding="utf-8")
        assert await running.gate.reload(running.config_file)
        await running.status("GET", "/api/pack/list", "alice")
        assert asked(comfy) == ["GET /pack/list"]
        running.config_file.write_text(text, encoding="utf-8")
        assert await running.gate.reload(running.config_file)
        assert await running.status("GET", "/pack/list", "alice") == 404
        assert asked(comfy) == ["GET /pack/list"]
    await comfy.stop()


async def test_who_may_what(tmp_path: Path, comfy: StandIn) -> None:
    await comfy.start()
    async with running_gate(tmp_path, comfy.url, more=ROWS) as running:
        for method, path in (("GET", "/pack/reboot"), ("POST", "/pack/reboot")):
            assert await _refusal(running, method, path, "alice") == (403, "admins_only")
        for who in ("alice", "admin"):
            assert await _refusal(running, "GET", "/pack/disk", who) == (403, "route_refused")
        assert await running.status("DELETE", "/pack/disk", "alice") == 405
        assert asked(comfy) == []
        await running.status("POST", "/pack/reboot?now=1", "admin", data=b"x=1")
        assert asked(comfy) == ["POST /pack/reboot?now=1"]
    await comfy.stop()


async def test_no_secret_of_a_query_goes_along(tmp_path: Path, comfy: StandIn) -> None:
    await comfy.start()
    async with running_gate(tmp_path, comfy.url, more=ROWS) as running:
        await running.status("GET", f"/pack/files/a.js?token={running.keys['alice']}&v=2", None)
        await running.status("HEAD", "/pack/files/a.js?secret=1", "alice")
        assert asked(comfy) == ["GET /pack/files/a.js", "HEAD /pack/files/a.js"]
    await comfy.stop()


async def _refusal(running: Running, method: str, path: str, who: str) -> tuple[int, str]:
    async with running.call(method, path, who) as response:
        document = await response.json()
        return response.status, document["error"]["type"]
