"""Outputs that a function gives in another form: what is copied of them, what their links lead to, and when their originals go."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from policy.attempts import SCHEDULE_S
from policy.copies import CopyState
from proxy.jobs.copy_requests import Copy
from proxy.persistence.operations import Operation, Statement
from standin import StandIn
from tests.harness import Running, running_gate
from tests.proxy.copies.forming import BARE, TENANTS, WEBP, forming, write_paint
from tests.proxy.copies.making import (
    copies,
    database_of,
    eventually,
    in_its_own_time,
    later,
    made,
    output_of,
    read,
    settled,
    shown,
)
from tests.proxy.copies.s3 import S3Server, moto_server, storage
from tests.proxy.v2.asking import ask

KEEP_S = 3600.0


@pytest.fixture
async def gate(tmp_path: Path, comfy: StandIn, s3: S3Server) -> AsyncIterator[Running]:
    async with forming(tmp_path, comfy, storage(s3, tmp_path, f'keep_local = "{KEEP_S:.0f}s"')) as running:
        yield running


async def called(gate: Running, who: str = "alice") -> str:
    answer = await ask(gate, "POST", "/gate/run/paint", who, json={}, headers={"Prefer": "wait=60"})
    assert answer.status == 200, answer.raw
    return str(answer.body["id"])


async def linked(gate: Running, output: Any) -> bytes:
    async with gate.session.get(output["link"]["url"]) as answer:
        assert answer.status == 200, await answer.read()
        assert answer.headers["Content-Type"] == output["content_type"]
        assert answer.headers["Content-Disposition"] == f'inline; filename="{output["name"]}"'
        return await answer.read()


def on_disk(gate: Running) -> list[str]:
    folder = gate.config_file.parent / "comfyui" / "output" / "tenants" / "alice"
    return sorted(file.name for file in folder.iterdir())


def are_wiped(found: Sequence[Copy]) -> bool:
    """The originals of both jobs."""
    return [(copy.state, copy.due_at_s) for copy in found].count((CopyState.WIPED, None)) == 2


def forget_converted(gate: Running) -> None:
    shutil.rmtree(gate.gate.dependencies.conversions._kept._folder / "alice")


async def test_the_link_leads_to_what_the_function_gives(gate: Running, s3: S3Server) -> None:
    done = await called(gate)
    found = {copy.form: copy for copy in await settled(gate, 2)}
    output = await output_of(gate, done)
    assert output["name"] == "painted_00001_.webp"
    given = await read(gate, output["url"])
    assert given[8:12] == b"WEBP"
    assert await linked(gate, output) == given
    assert (output["size_bytes"], output["hash"]) == (len(given), found["webp-80"].form_hash)
    original = await read(gate, "/view?filename=painted_00001_.png")
    assert s3.objects() == {
        f"media/outputs/alice/{done}/{found[''].copy_id}/painted_00001_.png": original,
        f"media/outputs/alice/{done}/{found['webp-80'].copy_id}/painted_00001_.webp": given,
    }


async def test_every_other_door_goes_on_telling_of_the_original(gate: Running) -> None:
    done = await called(gate)
    await settled(gate, 2)
    [output] = (await ask(gate, "GET", f"/api/v2/jobs/{done}")).body["outputs"]
    assert output["name"] == "painted_00001_.png"
    assert (await linked(gate, output))[1:4] == b"PNG"
    asset = (await ask(gate, "GET", f"/api/v2/assets/{output['id']}")).body
    async with gate.session.get(asset["url"]) as answer:
        assert (await answer.read())[1:4] == b"PNG"


async def test_moto_takes_what_is_converted_too(tmp_path: Path, comfy: StandIn) -> None:
    async with (
        moto_server(tmp_path / "s3") as server,
        forming(tmp_path, comfy, storage(server, tmp_path), BARE) as gate,
    ):
        done = await called(gate)
        await settled(gate, 2)
        output = await output_of(gate, done)
        bare = await linked(gate, output)
        assert bare == await read(gate, output["url"])
        assert (b"prompt" in bare, b"prompt" in await read(gate, "/view?filename=painted_00001_.png")) == (False, True)


def _marked(copy_id: str, mark: str) -> Operation[None]:
    yield Statement("UPDATE copies SET form = ? WHERE copy_id = ?", (mark, copy_id))


@pytest.mark.parametrize("mark", ["-0", "stripped-0"])
async def test_what_was_stripped_of_less_has_no_link(tmp_path: Path, comfy: StandIn, s3: S3Server, mark: str) -> None:
    async with forming(tmp_path, comfy, storage(s3, tmp_path), BARE) as gate:
        done = await called(gate)
        [copied] = [copy for copy in await settled(gate, 2) if copy.form]
        address = f"/api/v2/jobs/{done}"
        [output] = (await ask(gate, "GET", address)).body["outputs"]
        assert len(output["forms"]) == 1
        assert "link" in await output_of(gate, done)
        await database_of(gate).run(_marked, copied.copy_id, mark)
        [output] = (await ask(gate, "GET", address)).body["outputs"]
        assert "link" in output, "to the original"
        assert "forms" not in output
        given = await output_of(gate, done)
        assert "link" not in given
        assert b"prompt" not in await read(gate, given["url"])


async def test_a_folder_has_the_converted_file_and_no_link(tmp_path: Path, comfy: StandIn) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    async with forming(tmp_path, comfy, f'[storage]\nurl = "file://{folder}"\n') as gate:
        done = await called(gate)
        found = {copy.form: copy for copy in await settled(gate, 2)}
        output = await output_of(gate, done)
        assert "link" not in output
        assert (folder / found["webp-80"].object_key).read_bytes() == await read(gate, output["url"])


async def test_what_is_copied_is_not_converted_to_be_told_of(gate: Running) -> None:
    done = await called(gate)
    await settled(gate, 2)
    before = await output_of(gate, done)
    forget_converted(gate)
    after = await output_of(gate, done)
    assert (after["size_bytes"], after["hash"]) == (before["size_bytes"], before["hash"])
    assert not (gate.gate.dependencies.conversions._kept._folder / "alice").exists()


async def test_another_form_than_was_copied_has_no_link(gate: Running) -> None:
    done = await called(gate)
    await settled(gate, 2)
    write_paint(gate.config_file.parent, 'convert = "jpeg"\n')
    assert await gate.gate.reload(gate.config_file)
    output = await output_of(gate, done)
    assert (output["name"], "link" in output) == ("painted_00001_.jpg", False)
    assert (await read(gate, output["url"]))[:2] == b"\xff\xd8"


async def test_links_are_their_tenants_own(gate: Running) -> None:
    mine, theirs = await called(gate), await called(gate, "mallory")
    await settled(gate, 4)
    assert f"/alice/{mine}/" in (await output_of(gate, mine))["link"]["url"]
    assert f"/mallory/{theirs}/" in (await output_of(gate, theirs, "mallory"))["link"]["url"]
    assert (await ask(gate, "GET", f"/gate/jobs/{mine}", "mallory")).status == 404


async def test_an_original_goes_when_all_is_copied_and_every_form_is_given_all_the_same(gate: Running) -> None:
    clock = in_its_own_time(gate)
    done = await called(gate)
    await made(gate, "painted")
    await settled(gate, 3)
    before = await read(gate, (await output_of(gate, done))["url"])
    later(gate, clock, KEEP_S + 1)
    await eventually(gate, are_wiped)
    assert on_disk(gate) == ["painted_00002_.png"]
    forget_converted(gate)
    output = await output_of(gate, done)
    assert await read(gate, output["url"]) == await linked(gate, output) == before
    write_paint(gate.config_file.parent, 'convert = "jpeg"\n')  # nobody thought of it when the original went
    assert await gate.gate.reload(gate.config_file)
    assert (await read(gate, (await output_of(gate, done))["url"]))[:2] == b"\xff\xd8"


async def test_while_the_bucket_is_away_what_it_alone_has_is_not_converted(gate: Running, s3: S3Server) -> None:
    clock = in_its_own_time(gate)
    done = await called(gate)
    await made(gate, "painted")
    await settled(gate, 3)
    later(gate, clock, KEEP_S + 1)
    await eventually(gate, are_wiped)
    forget_converted(gate)
    url = (await output_of(gate, done))["url"].removeprefix(gate.url)
    await s3.kill()
    answer = await ask(gate, "GET", url)
    assert (answer.status, answer.body["error"]["type"]) == (503, "storage_unavailable")
    await s3.start()
    assert (await read(gate, url))[8:12] == b"WEBP"


async def test_what_cannot_be_converted_keeps_its_original_and_is_told(
    tmp_path: Path, comfy: StandIn, s3: S3Server
) -> None:
    section = storage(s3, tmp_path, f'keep_local = "{KEEP_S:.0f}s"')
    async with forming(tmp_path, comfy, section, server="max_picture_pixels = 100") as gate:
        clock = in_its_own_time(gate)
        done = await called(gate)
        for attempts in (1, 2, 3):
            await eventually(gate, lambda found, n=attempts: any(copy.attempts == n for copy in found))  # type: ignore[misc]
            later(gate, clock, SCHEDULE_S[attempts] + 1)
        later(gate, clock, KEEP_S)
        found = await eventually(
            gate, lambda found: any(copy.note == "another copy is still to be made of it" for copy in found)
        )
        [failed] = [copy for copy in found if copy.form]
        assert failed.state == CopyState.FAILED
        assert "cannot be given as webp" in failed.note
        assert on_disk(gate) == ["painted_00001_.png"]
        output = await output_of(gate, done)
        assert "link" not in output
        assert output["error"] == failed.note


async def test_who_deletes_the_asset_deletes_all_its_copies(gate: Running, s3: S3Server) -> None:
    done = await called(gate)
    await settled(gate, 2)
    asset = (await output_of(gate, done))["id"]
    async with gate.call("DELETE", f"/api/v2/assets/{asset}", "alice") as answer:
        assert answer.status == 204
    await eventually(gate, lambda found: not found)
    assert s3.objects() == {}


async def test_nothing_is_linked_before_it_is_copied(gate: Running, s3: S3Server) -> None:
    s3.freeze()
    done = await called(gate)
    assert "link" not in await output_of(gate, done)
    s3.thaw()
    await settled(gate, 2)
    assert "link" in await output_of(gate, done)
    assert len((await shown(gate, done))["outputs"]) == 1
    assert len(await copies(gate)) == 2


async def test_a_form_is_made_of_the_copy_while_comfyui_is_away(tmp_path: Path, comfy: StandIn, s3: S3Server) -> None:
    write_paint(tmp_path, WEBP)
    async with running_gate(tmp_path, comfy.url, more=storage(s3, tmp_path), tenants=TENANTS) as gate:
        done = await called(gate)
        await settled(gate, 2)
        output = await output_of(gate, done)
        given = await read(gate, output["url"])
        forget_converted(gate)
        await comfy.stop()
        assert await read(gate, output["url"]) == given
        forget_converted(gate)
        assert (await ask(gate, "GET", output["url"].removeprefix(gate.url), "mallory")).status == 404
