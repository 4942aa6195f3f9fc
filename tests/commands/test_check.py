"""`comfygate check`: good or not, and what is dangerous though it would run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from proxy.cli import app
from proxy.commands.check import _about_comfyui, _is_loopback, _listen_address
from proxy.standin import StandIn
from tests.harness import write_config


async def run(file: Path) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["check", "--config", str(file)])


async def test_a_good_file_makes_nothing(tmp_path: Path, comfy: StandIn) -> None:
    file, _ = write_config(tmp_path, comfy.url)
    result = await run(file)
    assert result.exit_code == 0, result.output
    assert "is good: 2 tenants, 3 keys." in result.stdout
    assert not (tmp_path / "state").exists()


async def test_what_is_dangerous_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[server]\nhost = "0.0.0.0"\n[ops]\nhost = "::"\n[upstream]\nurl = "http://127.0.0.1:1"\n[tenants.a]\n'
    )
    result = await run(file)
    assert result.exit_code == 0
    for words in ("nobody gets in", "ops.host ::", "server.host 0.0.0.0", "does not answer"):
        assert words in result.stderr
    assert "1 tenant, 0 keys" in result.stdout


async def test_a_bad_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[policies.p]\nextend = "ghost"\n')
    result = await run(file)
    assert (result.exit_code, "policies.p" in result.stderr) == (1, True)


def stats(*arguments: str, version: str = "0.33.0") -> dict[str, Any]:
    return {"system": {"argv": ["main.py", *arguments], "comfyui_version": version}}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (stats(), []), (stats("--listen", "127.0.0.1"), []), (stats("--listen", "127.0.0.1,::1"), []),
        (stats("--listen"), ["0.0.0.0,::"]), (stats("--listen", "--port"), ["0.0.0.0,::"]),
        (stats("--listen=10.0.0.1"), ["10.0.0.1"]), (stats("--listen", "127.0.0.1,10.0.0.1"), ["10.0.0.1"]),
        (stats("--enable-manager"), ["Manager"]), (stats("--enable-cors-header"), ["origin check"]),
        (stats(version="0.3.63"), ["older"]), (stats(version="0.3.64"), []), (stats(version=""), []),
        ({}, ["is it ComfyUI"]), (None, ["is it ComfyUI"]), ({"system": 5}, ["is it ComfyUI"]),
    ],
)  # fmt: skip
def test_what_comfyui_tells_of_itself(told: Any, words: list[str]) -> None:
    found = _about_comfyui(told)
    assert len(found) == len(words)
    assert all(word in warning for word, warning in zip(words, found, strict=True))


def test_addresses() -> None:
    assert [_is_loopback(host) for host in ("localhost", "127.9.9.9", "::1", "0.0.0.0", "host")] == [True] * 3 + [
        False
    ] * 2
    assert _listen_address([]) is None
