"""`comfygate policy`: an allow-list from workflows, and a workflow judged against the classes of a running ComfyUI."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from proxy.commands.command_line import app
from standin import StandIn
from tests.contract.driver import node, saving
from tests.harness import write_config


async def run(*words: str) -> Result:
    """In a thread: the command has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["policy", *words])


def put(folder: Path, content: object) -> str:
    file = folder / "workflow.json"
    file.write_bytes(orjson.dumps(content))
    return str(file)


async def test_learn(tmp_path: Path) -> None:
    result = await run("learn", put(tmp_path, saving("x")))
    assert result.exit_code == 0, result.output
    assert "EmptyImage" in result.stdout
    assert "SaveImage" in result.stdout


async def test_learn_prints_what_is_not_permitted_yet(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[tenants.a]\n[tenants.b]\npolicy = "p"\n[policies.p]\nallow = ["SaveImage"]\n')
    file = put(tmp_path, saving("x"))
    for tenant, permitted in (("a", []), ("b", ["SaveImage"])):
        said = (await run("learn", file, "--tenant", tenant, "--config", str(config))).stdout
        assert sorted([*tomllib.loads(said)["allow"], *permitted]) == ["EmptyImage", "SaveImage"]
        assert ('# permitted already: "SaveImage"' in said) is bool(permitted)
    both = (await run("learn", file, "--config", str(config))).stdout
    assert tomllib.loads(both)["allow"] == ["EmptyImage", "SaveImage"]
    config.write_text('[tenants.b]\npolicy = "p"\n[policies.p]\nallow = ["SaveImage"]\n')
    only = (await run("learn", file, "--config", str(config))).stdout
    assert tomllib.loads(only)["allow"] == ["EmptyImage"]
    unknown = await run("learn", file, "--tenant", "ghost", "--config", str(config))
    assert (unknown.exit_code, "There is no [tenants.ghost]" in unknown.stderr) == (1, True)
    bad = await run("learn", file, "--tenant", "b", "--config", str(tmp_path / "none.toml"))
    assert (bad.exit_code, "cannot be read" in bad.stderr) == (1, True)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"nodes": [], "links": []}'])
async def test_learn_from_what_is_no_workflow(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "w.json"
    file.write_bytes(content)
    result = await run("learn", str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr
    assert "cannot be read" in (await run("learn", str(tmp_path / "none.json"))).stderr


@pytest.mark.parametrize("is_body", [False, True])
async def test_a_workflow_is_judged(tmp_path: Path, comfy: StandIn, is_body: bool) -> None:
    config, _ = write_config(tmp_path, comfy.url)
    options = ("--tenant", "alice", "--config", str(config))
    good = saving("x")
    result = await run("test", put(tmp_path, {"prompt": good} if is_body else good), *options)
    assert result.exit_code == 0, result.output
    bad = good | {"3": node("LoadAudio", audio="a.wav")}
    result = await run("test", put(tmp_path, {"prompt": bad} if is_body else bad), *options)
    assert result.exit_code == 1
    assert "LoadAudio" in result.stderr


async def test_what_cannot_be_judged(tmp_path: Path, comfy: StandIn) -> None:
    config, _ = write_config(tmp_path, comfy.url)
    workflow = put(tmp_path, saving("x"))
    result = await run("test", workflow, "--tenant", "ghost", "--config", str(config))
    assert "There is no [tenants.ghost]" in result.stderr
    assert "cannot be read" in (await run("test", workflow, "--tenant", "alice", "--config", "none.toml")).stderr
    await comfy.stop()
    result = await run("test", workflow, "--tenant", "alice", "--config", str(config))
    assert result.exit_code == 1
    assert "does not answer" in result.stderr
