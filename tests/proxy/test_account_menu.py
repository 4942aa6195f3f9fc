"""The gate's own extension of the web UI: in the list of extensions, served by the gate, and gone when it is switched off."""

from __future__ import annotations

import re
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from policy.principal import Role
from policy.rules.catalog import ACCOUNT_SCRIPT, extensions
from proxy import pages
from standin import StandIn
from tests.harness import Running, running_gate
from tests.policy.tenants import caller_of, request_of
from tests.programs import needs

CORE = "/extensions/core/noop.js"
NAMESAKE = "/extensions/comfygate/account.js"


@pytest.mark.parametrize("who", ["alice", "admin"])
async def test_the_list_names_the_script_for_everybody(gate: Running, who: str) -> None:
    for prefix in ("", "/api"):
        assert (await gate.json("GET", f"{prefix}/extensions", who))[-1:] == [ACCOUNT_SCRIPT]


@pytest.mark.parametrize("role", [Role.USER, Role.ADMIN])
def test_what_a_pack_lists_stands_in_no_way(role: Role) -> None:
    request = request_of(caller_of("alice", role))
    assert extensions([CORE, ACCOUNT_SCRIPT, NAMESAKE], request) == [CORE, NAMESAKE, ACCOUNT_SCRIPT]
    off = request_of(caller_of("alice", role, has_account_menu=False))
    assert extensions([CORE, ACCOUNT_SCRIPT, NAMESAKE], off) == [CORE, NAMESAKE]


@pytest.mark.parametrize("who", ["alice", "admin", None])
async def test_the_script_is_the_gates_own(gate: Running, who: str | None) -> None:
    script = files(pages).joinpath("account.js").read_bytes()
    for method, body in (("GET", script), ("HEAD", b"")):
        async with gate.call(method, ACCOUNT_SCRIPT, who) as answer:
            assert (answer.status, answer.content_type) == (200, "text/javascript")
            assert answer.headers["Content-Length"] == str(len(script))
            assert answer.headers["Cache-Control"] == "private, no-cache"
            assert "Set-Cookie" not in answer.headers
            assert await answer.read() == body
    assert await gate.status("POST", ACCOUNT_SCRIPT, who) == 405


async def test_it_can_be_switched_off_while_the_gate_runs(tmp_path: Path, comfy: StandIn) -> None:
    async with running_gate(tmp_path, comfy.url, server="account_menu = false\n") as gate:
        assert ACCOUNT_SCRIPT not in await gate.json("GET", "/extensions", "alice")
        assert await gate.status("GET", ACCOUNT_SCRIPT, "alice") == 404
        assert await gate.status("GET", ACCOUNT_SCRIPT, None) == 401
        text = gate.config_file.read_text()
        gate.config_file.write_text(text.replace("account_menu = false", "account_menu = true"))
        assert await gate.gate.reload(gate.config_file)
        assert ACCOUNT_SCRIPT in await gate.json("GET", "/extensions", "alice")
        assert await gate.status("GET", ACCOUNT_SCRIPT, None) == 200


def test_all_that_the_script_leads_to_is_relative_to_itself() -> None:
    """So it works below any path prefix."""
    script = files(pages).joinpath("account.js").read_text(encoding="utf-8")
    assert re.findall(r'(?:from |new URL\()"([^"]+)"', script) == ["../scripts/app.js", "me", "me#sign-out"]
    assert not re.search(r"https?://", script)


@needs("node")
def test_the_script_is_a_module(tmp_path: Path) -> None:
    module = tmp_path / "account.mjs"
    module.write_bytes(files(pages).joinpath("account.js").read_bytes())
    subprocess.run(["node", "--check", str(module)], check=True)
