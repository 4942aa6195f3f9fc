"""`comfygate routes`, and what `comfygate check` says of routes that are closed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from policy.table import ROUTES
from proxy.commands.closed_routes import _by_folder
from proxy.commands.command_line import app
from standin import StandIn
from tests.harness import write_config
from tests.pack.rows import ROWS
from tests.pack.standin import make_pack


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def listed(tmp_path: Path, text: str, *more: str) -> Result:
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    return run("routes", "--config", str(file), *more)


def test_every_row_is_listed(tmp_path: Path) -> None:
    rows = json.loads(listed(tmp_path, '[upstream]\npacks = ["vhs"]\n' + ROWS, "--json").stdout)
    assert [f"{row['method']} {row['path']}" for row in rows[: len(ROUTES)]] == [route.name for route in ROUTES]
    by_name: dict[str, Any] = {f"{row['method']} {row['path']}": row for row in rows}
    assert by_name["GET /vhs/getpath"] == {
        "method": "GET",
        "path": "/vhs/getpath",
        "also": ["/api/vhs/getpath"],
        "kind": "never",
        "from": "pack vhs",
        "who": "nobody",
        "scope": "jobs:submit",
        "budget": "requests",
        "note": "it lists the folders of the server's disk",
    }
    known = {name: (row["kind"], row["from"], row["who"]) for name, row in by_name.items()}
    assert known["PUT /gate-pack/bytes/{id}"] == ("own-id", "routes[5]", "tenants")
    assert known["POST /gate-pack/restart"] == ("admin", "routes[8]", "admins")
    assert known["POST /free"] == ("admin", "ComfyUI", "admins")
    assert known["POST /api/assets/download"] == ("never", "ComfyUI", "nobody")
    assert known["GET /embeddings"] == ("shared", "ComfyUI", "tenants")
    assert known["GET /ws"] == ("events", "ComfyUI", "tenants")
    assert known["GET /view"] == ("own", "ComfyUI", "tenants")


def test_a_person_reads_a_table(tmp_path: Path) -> None:
    lines = listed(tmp_path, '[upstream]\npacks = ["kjnodes"]\n').stdout.splitlines()
    assert lines[0].split() == ["method", "path", "kind", "from", "who", "note"]
    assert lines[-1].split() == [
        "GET",
        "/kjweb_async/{file...}",
        "static",
        "pack",
        "kjnodes",
        "tenants",
        "libraries",
        "of",
        "its",
        "scripts",
    ]
    assert len(lines) == len(ROUTES) + 2


def test_a_file_with_a_mistake_is_told(tmp_path: Path) -> None:
    result = listed(tmp_path, '[upstream]\npacks = ["vsh"]\n')
    assert (result.exit_code, "there is no pack 'vsh'" in result.stderr) == (1, True)


@pytest.fixture
async def comfy(tmp_path: Path) -> AsyncIterator[StandIn]:
    pack = make_pack()
    pack.scripts.update(  # type: ignore[attr-defined]
        {
            "/extensions/rgthree-COMFY/rgthree.js": 'import { a } from "../../rgthree/common/a.js"; fetch("/rgthree/new");',
            "/extensions/kjnodes/a.js": "fetch('/kjweb_async/marked.min.js')",
        }
    )
    standin = StandIn(tmp_path / "comfyui", frontend=False, pack=pack)
    await standin.start()
    yield standin
    await standin.stop()


async def check(tmp_path: Path, comfy: StandIn, upstream_more: str = "", more: str = "") -> str:
    file, _ = write_config(tmp_path, comfy.url, upstream_more=upstream_more, more=more)
    result = await asyncio.to_thread(run, "check", "--config", str(file))
    assert result.exit_code == 0, result.output
    return result.stderr


async def test_check_says_which_packs_are_closed_and_how_to_open_them(tmp_path: Path, comfy: StandIn) -> None:
    said = await check(tmp_path, comfy)
    assert "upstream.packs: the routes of rgthree-comfy are closed" in said
    assert 'packs = ["rgthree"] opens' in said
    assert "KJNodes" not in said, "its folder has another name here"
    assert (
        "routes: scripts of gate_pack name /gate-pack/answer, /gate-pack/models, /gate-pack/not-in-any-row, for which"
        in said
    )
    assert "routes: scripts of rgthree-COMFY name /rgthree/new, for which there is no row" in said
    assert "/rgthree/common" not in said, "the pack opens it"
    assert "routes: scripts of kjnodes name /kjweb_async/marked.min.js" in said


async def test_check_says_nothing_of_what_is_open(tmp_path: Path, comfy: StandIn) -> None:
    said = await check(tmp_path, comfy, 'packs = ["kjnodes", "rgthree"]\n', ROWS)
    assert "upstream.packs" not in said
    assert "scripts of kjnodes" not in said
    assert "scripts of gate_pack name /gate-pack/not-in-any-row, for which" in said


async def test_without_comfyui_check_says_so_and_goes_on(tmp_path: Path, comfy: StandIn) -> None:
    await comfy.stop()
    said = await check(tmp_path, comfy)
    assert "nor routes with what its custom nodes call" in said


@pytest.mark.parametrize("listed", [None, {}, [1, "/extensions/x", "/extensions/core/a.js", "/scripts/app/a/b.js"]])
def test_what_is_no_list_of_scripts_names_no_pack(listed: Any) -> None:
    assert _by_folder(listed) == {}
