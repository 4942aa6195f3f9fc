"""`comfygate storage` beside a gate that runs, and `comfygate check` of a bucket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from standin import StandIn
from tests.commands.cli import Said, aside, comfygate
from tests.harness import Running, running_gate
from tests.proxy.copies.making import eventually, made, settled
from tests.proxy.copies.s3 import S3Server, credentials, s3_server, storage


@pytest.fixture(autouse=True)
def _obstore_does_not_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.copies.opening._RETRY", {"max_retries": 0})


@pytest.fixture
async def s3(tmp_path: Path) -> AsyncIterator[S3Server]:
    async with s3_server(tmp_path / "s3") as server:
        yield server


@pytest.fixture
async def gate(tmp_path: Path, comfy: StandIn, s3: S3Server) -> AsyncIterator[Running]:
    async with running_gate(tmp_path, comfy.url, more=storage(s3, tmp_path)) as running:
        yield running


async def said(gate: Running, *words: object) -> Said:
    return await aside("storage", *words, "--config", gate.config_file)


async def test_what_is_copied_is_listed_when_it_is_asked_for(gate: Running) -> None:
    job = await made(gate)
    await settled(gate, 1)
    nothing = await said(gate, "list")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "There is no such copy.\n")
    listed = await said(gate, "list", "--all")
    assert job in listed.out
    assert "copied" in listed.out
    [line] = (await said(gate, "list", "--all", "--json", "--tenant", "alice")).out.splitlines()
    told = orjson.loads(line)
    assert (told["job"], told["state"], told["next_attempt_at"], told["attempts"]) == (job, "copied", None, 0)
    assert (await said(gate, "list", "--all", "--tenant", "mallory")).out == ""


async def test_what_waits_is_made_again_at_once(gate: Running, s3: S3Server) -> None:
    await s3.kill()
    await made(gate)
    [copy] = await eventually(gate, lambda found: bool(found and found[0].attempts == 1))
    listed = await said(gate, "list")
    assert "waiting, next in" in listed.out
    await s3.start()
    again = await said(gate, "resend", copy.copy_id)
    assert (again.code, again.out) == (0, "1 to be made again: a running gate begins at once.\n")
    await settled(gate, 1)
    missing = await said(gate, "resend", copy.copy_id)
    assert (missing.code, "that waits or has failed" in missing.err) == (1, True)
    assert (await said(gate, "resend", "--failed")).out.startswith("0 to be made again")
    assert (await said(gate, "resend")).code == 1


async def test_a_job_whose_files_are_not_known_yet_is_listed_too(gate: Running, s3: S3Server) -> None:
    s3.freeze()
    for _ in range(3):
        await made(gate)
    await eventually(gate, lambda found: sum(bool(copy.gate) for copy in found) == 2)
    listed = await said(gate, "list")
    s3.thaw()
    assert "is being worked at" in listed.out
    assert "(not known yet)" in listed.out
    await settled(gate, 3)


async def test_the_bucket_is_tried_with_one_object_which_goes_again(tmp_path: Path, s3: S3Server) -> None:
    config = tmp_path / "config.toml"
    config.write_text(storage(s3, tmp_path))
    good = await aside("storage", "test", "--config", config)
    assert (good.code, good.err) == (0, "")
    assert "takes, gives and deletes objects, and makes links" in good.out
    assert s3.objects() == {}
    credentials(tmp_path, secret="another-secret")
    bad = await aside("storage", "test", "--config", config)
    assert (bad.code, "cannot be used: writing: " in bad.err) == (1, True)
    assert "another-secret" not in bad.err


def test_what_cannot_be_tried_says_why(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("")
    said = comfygate("storage", "test", "--config", config)
    assert (said.code, "nothing is copied" in said.err) == (1, True)
    config.write_text('[storage]\nurl = "s3://media"\ncredentials_file = "none"\n')
    said = comfygate("storage", "test", "--config", config)
    assert (said.code, "storage.credentials_file: " in said.err) == (1, True)
    folder = tmp_path / "outputs"
    folder.mkdir()
    config.write_text(f'[storage]\nurl = "file://{folder}"\n')
    said = comfygate("storage", "test", "--config", config)
    assert (said.code, "makes no links, so the gate gives the files" in said.out) == (0, True)
    assert list(folder.iterdir()) == []


async def test_check_looks_into_the_bucket_and_writes_nothing(tmp_path: Path, comfy: StandIn, s3: S3Server) -> None:
    config = tmp_path / "config.toml"
    section = storage(s3, tmp_path, 'keep_local = "1d"')
    config.write_text(f'[upstream]\nurl = "{comfy.url}"\n[tenants.alice]\n{section}')
    good = await aside("check", "--config", config)
    assert good.code == 0
    assert "cannot be looked into" not in good.err
    assert "storage.keep_local wipes nothing: set upstream.directory" in good.err
    await s3.kill()
    away = await aside("check", "--config", config)
    assert (away.code, "cannot be looked into" in away.err) == (0, True)
    assert s3.objects() == {}
