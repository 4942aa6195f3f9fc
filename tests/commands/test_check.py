"""`comfygate check`: good or not, and what is dangerous though it would run."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from proxy.commands.check_comfyuis import about_comfyui, is_loopback, listen_address
from proxy.commands.command_line import app
from proxy.persistence.postgres import PostgresDatabase
from proxy.webhooks.endpoint import new_secret
from standin import StandIn
from tests.harness import write_config
from tests.proxy.functions.calls import PAINT, write_functions
from tests.several.world import put_model


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


async def test_webhooks_without_an_address_for_their_links_are_warned_of(tmp_path: Path, comfy: StandIn) -> None:
    (tmp_path / "a.secret").write_text(new_secret(), "ascii")
    calls = 'call_webhooks = ["hooks.example.com"]\ncall_webhooks_secret_file = "a.secret"\n'
    for url in ("", 'public_url = "https://comfy.example.com"'):
        file, _ = write_config(tmp_path, comfy.url, tenants=f"[tenants.alice]\n{calls}[tenants.mallory]\n", server=url)
        assert ("the links in webhooks have no host" in (await run(file)).stderr) is not bool(url)


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
    found = about_comfyui(told)
    assert len(found) == len(words)
    assert all(word in warning for word, warning in zip(words, found, strict=True))


def test_addresses() -> None:
    assert [is_loopback(host) for host in ("localhost", "127.9.9.9", "::1", "0.0.0.0", "host")] == [True] * 3 + [
        False
    ] * 2
    assert listen_address([]) is None


async def test_a_policy_that_permits_everything_is_a_few_sentences(tmp_path: Path, comfy: StandIn) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[upstream]\nurl = "{comfy.url}"\n[tenants.a]\n[policies.default]\nallow = ["*"]\n')
    result = await run(file)
    warnings = result.stderr.splitlines()
    assert 1 < len(warnings) < 12, result.stderr
    assert "Finding(" not in result.stderr
    assert "Code." not in result.stderr
    assert all(line.startswith("warning: ") for line in warnings)


async def test_a_comfyui_elsewhere_names_the_address_and_what_to_change(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[upstream]\nurl = "http://127.0.0.1:1"\n[tenants.a]\n')
    said = (await run(file)).stderr
    assert "does not answer at http://127.0.0.1:1 (connection refused)" in said
    assert "upstream.url" in said


async def test_what_needs_comfyuis_folder_is_a_mistake_without_it(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[limits.default]\nstorage = "1GiB"\n[limits.big]\nretention = "30d"\n')
    result = await run(file)
    assert result.exit_code == 1
    assert "line 2: limits.default.storage: needs upstream.directory" in result.stderr
    assert "line 4: limits.big.retention: needs upstream.directory" in result.stderr
    file.write_text('[upstream]\ndirectory = "."\n[limits.default]\nstorage = "1GiB"\n')
    assert (await run(file)).exit_code == 0


async def test_the_issuers_keys_are_fetched(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    issuer = '[jwt.main]\nissuer = "https://login.example.com/"\naudience = "gate"\nalgorithms = ["RS256"]\n'
    file.write_text(f'{issuer}jwks_url = "http://127.0.0.1:1/keys?secret=1"\n[tenants.a]\n')
    result = await run(file)
    assert result.exit_code == 0
    assert "the issuer's keys at http://127.0.0.1:1/keys cannot be read" in result.stderr
    assert "secret=1" not in result.stderr


async def test_a_database_that_cannot_be_used_is_a_mistake(tmp_path: Path, comfy: StandIn) -> None:
    file, _ = write_config(tmp_path, comfy.url, more='[jobs]\ndatabase = "postgresql://gate:hidden@127.0.0.1:1/jobs"\n')
    result = await run(file)
    assert result.exit_code == 1
    assert "jobs.database: cannot be used: postgresql://127.0.0.1:1/jobs: " in result.stderr
    assert "hidden" not in result.output


async def test_a_database_that_is_there_is_good_and_stays_empty(
    tmp_path: Path, comfy: StandIn, postgres_url: str
) -> None:
    file, _ = write_config(tmp_path, comfy.url, more=f'[jobs]\ndatabase = "{postgres_url}"\n')
    result = await run(file)
    assert (result.exit_code, "is good" in result.stdout) == (0, True), result.output
    assert "postgresql" not in result.stderr
    database = PostgresDatabase(postgres_url)
    await database.open()
    assert database.is_past_unknown, "the tables were made by the check"
    await database.close()


async def test_outputs_that_are_converted_need_pillow(
    tmp_path: Path, comfy: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = write_config(tmp_path, comfy.url)
    write_functions(tmp_path, {"small": ('[outputs.picture]\nnode = "2"\nconvert = "avif"\n', PAINT)})
    result = await run(file)
    assert (result.exit_code, "cannot be given" in result.stderr) == (0, False)
    with monkeypatch.context() as patched:
        patched.setattr("proxy.conversion.pool.ConverterPool.__init__.__defaults__", ((sys.executable, "-c", ""),))
        result = await run(file)
    assert (result.exit_code, "outputs cannot be given as avif" in result.stderr) == (0, True)
    monkeypatch.setattr("proxy.compiled_config.can_convert", lambda: False)
    result = await run(file)
    assert (result.exit_code, "install comfygate[convert]" in result.stderr) == (1, True)


async def test_a_policy_of_pinned_workflows_is_compared_with_comfyui(tmp_path: Path, comfy: StandIn) -> None:
    odd = PAINT | {"9": {"class_type": "RunShellCommand", "inputs": {}}}
    pinned = '[policies.kiosk]\nworkflows = [{ file = "paint.json" }, { file = "odd.json" }]\n'
    file, _ = write_config(
        tmp_path, comfy.url, tenants='[tenants.alice]\npolicy = "kiosk"\n[tenants.mallory]\n', more=pinned
    )
    for name, graph in (("paint", PAINT), ("odd", odd)):
        (tmp_path / f"{name}.json").write_text(json.dumps(graph), "utf-8")
    result = await run(file)
    assert result.exit_code == 0, result.output
    assert "policies.kiosk.workflows: odd.json cannot run: ComfyUI has no class RunShellCommand." in result.stderr
    (tmp_path / "odd.json").unlink()
    result = await run(file)
    assert (result.exit_code, "policies.kiosk.workflows: odd.json cannot be read" in result.stderr) == (1, True)


async def test_a_function_that_its_policy_refuses_is_warned_of(tmp_path: Path, comfy: StandIn) -> None:
    odd = PAINT | {"9": {"class_type": "RunShellCommand", "inputs": {}}}
    own = 'policy = "own"\n'
    tenants = '[tenants.alice]\nfunctions = ["*"]\n[tenants.mallory]\nfunctions = ["odd"]\n'
    more = '[policies.own]\nallow = ["*"]\n'
    file, _ = write_config(tmp_path, comfy.url, tenants=tenants, more=more)
    write_functions(tmp_path, {"odd": ("", odd), "even": ("", PAINT), "own": (own, odd)})
    result = await run(file)
    words = "functions/odd.toml: [policies.default] does not permit RunShellCommand, so every call of alice, mallory is refused"
    assert (result.exit_code, words in result.stderr) == (0, True), result.stderr
    assert not any(f"functions/{name}.toml" in result.stderr for name in ("even", "own"))


def write_several(folder: Path, *urls: str) -> Path:
    file = folder / "config.toml"
    tables = "".join(f'[[comfyui]]\nname = "gpu-{number}"\nurl = "{url}"\n' for number, url in enumerate(urls, 1))
    policy = '[tenants.a]\n[policies.default]\nallow = ["LoadImage"]\n'
    file.write_text(f"{tables}[server]\nport = 8190\n{policy}", encoding="utf-8")
    return file


async def test_of_several_comfyuis_it_is_told_which_alone_has_what(tmp_path: Path, comfy: StandIn) -> None:
    other = StandIn(tmp_path / "two", frontend=False)
    put_model(other, "only-here.safetensors")
    await other.start()
    try:
        result = await run(write_several(tmp_path, comfy.url, other.url, "http://127.0.0.1:1"))
    finally:
        await other.stop()
    assert result.exit_code == 0, result.output
    assert f"gpu-2: ComfyUI 0.33.0 at {other.url} has " in result.stdout
    assert "Only gpu-2 has 1 model: only-here.safetensors." in result.stdout
    assert "warning: gpu-3: ComfyUI does not answer at http://127.0.0.1:1 (connection refused)" in result.stderr
    assert "its url in [[comfyui]]" in result.stderr
    assert "Policies were not compared" not in result.stderr


async def test_without_the_first_of_several_routes_are_not_compared(tmp_path: Path, comfy: StandIn) -> None:
    result = await run(write_several(tmp_path, "http://127.0.0.1:1", comfy.url))
    assert "warning: gpu-1: ComfyUI does not answer" in result.stderr
    assert "gpu-2: ComfyUI 0.33.0" in result.stdout


def test_a_comfyui_elsewhere_has_to_listen_there() -> None:
    [words] = about_comfyui(stats("--listen"), is_elsewhere=True)
    assert "Let nobody but the gate reach it" in words
