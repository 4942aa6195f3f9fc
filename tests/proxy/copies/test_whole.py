"""From a job's end to its results in a bucket, through the whole gate."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from yarl import URL

from policy.copies import CopyState
from standin import StandIn
from tests.contract.driver import previewing, saving, unique
from tests.harness import AUDIT_FILE, Running, running_gate
from tests.proxy.copies.making import copies, eventually, made, output_of, read, settled, shown
from tests.proxy.copies.s3 import KEY, SECRET, S3Server, storage
from tests.proxy.v2.asking import ask, audited, job, submitted, until

LINKS_S = 3600.0
"""The configuration's default."""


def read_time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def test_what_a_job_made_is_in_the_bucket_and_its_link_gives_the_bytes(gate: Running, s3: S3Server) -> None:
    done = await made(gate)
    [copy] = await settled(gate, 1)
    output = await output_of(gate, done)
    original = await read(gate, output["url"])
    assert s3.objects() == {f"media/outputs/alice/{done}/{copy.copy_id}/{output['name']}": original}
    async with gate.session.get(output["link"]["url"]) as answer:
        assert (answer.status, await answer.read()) == (200, original)
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["Content-Disposition"] == f'inline; filename="{output["name"]}"'


async def test_before_it_is_copied_there_is_no_link(gate: Running, s3: S3Server) -> None:
    s3.freeze()
    done = await made(gate)
    assert "link" not in await output_of(gate, done)
    s3.thaw()
    await settled(gate, 1)
    assert "link" in await output_of(gate, done)


async def test_a_link_ends_when_it_says(tmp_path: Path, comfy: StandIn, s3: S3Server) -> None:
    async with running_gate(tmp_path, comfy.url, more=storage(s3, tmp_path, 'links = "2s"')) as gate:
        done = await made(gate)
        await settled(gate, 1)

        async def asked() -> tuple[Any, int]:
            link = (await output_of(gate, done))["link"]
            async with gate.session.get(link["url"]) as answer:
                return link, answer.status

        link, status = await asked()
        while status != 200:  # on a machine that takes longer than it lasts
            link, status = await asked()
        while status == 200:  # the server's own clock ends it
            await asyncio.sleep(0.1)
            async with gate.session.get(link["url"]) as answer:
                status = answer.status
        assert status in (400, 403)
        assert read_time(link["expires_at"]) - 1.0 < time.time(), "which knows whole seconds"


async def test_the_api_shows_links_where_its_contract_has_them(gate: Running) -> None:
    done = await made(gate)
    await settled(gate, 1)
    began_s = time.time()
    [output] = (await job(gate, done))["outputs"]
    assert output["url"].endswith(f"/api/v2/assets/{output['id']}/content")
    assert output["link"]["url"].startswith("http://127.0.0.1:")
    asset = (await ask(gate, "GET", f"/api/v2/assets/{output['id']}")).body
    async with gate.session.get(asset["url"]) as answer:
        assert (answer.status, len(await answer.read())) == (200, asset["size_bytes"])
    asked_s = (read_time(asset["url_expires_at"]) - LINKS_S, read_time(output["link"]["expires_at"]) - LINKS_S)
    assert all(began_s - 1.0 < each_s < time.time() + 1.0 for each_s in asked_s)


async def test_previews_are_copied_too(gate: Running) -> None:
    await until(gate, await submitted(gate, previewing(7)), "succeeded")
    [copy] = await settled(gate, 1)
    assert copy.folder == "temp"


async def test_a_gate_that_does_not_see_the_folders_copies_what_comfyui_sends(
    tmp_path: Path, comfy: StandIn, s3: S3Server
) -> None:
    async with running_gate(tmp_path, comfy.url, more=storage(s3, tmp_path)) as gate:
        done = await made(gate)
        await settled(gate, 1)
        output = await output_of(gate, done)
        assert list(s3.objects().values()) == [await read(gate, output["url"])]


async def test_tenants_have_their_own_prefixes_and_see_their_own_links(gate: Running, s3: S3Server) -> None:
    mine, theirs = await made(gate, "same"), await made(gate, "same", "mallory")
    await settled(gate, 2)
    assert {key.split("/")[2] for key in s3.objects()} == {"alice", "mallory"}
    own = (await output_of(gate, mine))["link"]["url"]
    other = (await output_of(gate, theirs, "mallory"))["link"]["url"]
    assert f"/alice/{mine}/" in own
    assert f"/mallory/{theirs}/" in other
    for path in (f"/gate/jobs/{mine}", f"/api/v2/jobs/{mine}", f"/gate/jobs/{mine}/outputs/2"):
        assert (await ask(gate, "GET", path, "mallory")).status == 404


async def test_a_link_is_good_for_its_object_alone(gate: Running) -> None:
    mine, theirs = await made(gate), await made(gate, who="mallory")
    await settled(gate, 2)
    own = (await output_of(gate, mine))["link"]["url"]
    other = (await output_of(gate, theirs, "mallory"))["link"]["url"]
    forged = other.partition("?")[0] + "?" + own.partition("?")[2]
    async with gate.session.get(URL(forged, encoded=True)) as answer:
        assert answer.status == 403, await answer.read()


async def test_neither_links_nor_credentials_are_logged(gate: Running) -> None:
    done = await made(gate)
    await settled(gate, 1)
    await shown(gate, done)
    logged = gate.log.getvalue() + (gate.config_file.parent / AUDIT_FILE).read_bytes()
    assert b"X-Amz" not in logged
    assert KEY.encode() not in logged
    assert SECRET.encode() not in logged
    [entry] = audited(gate, "copy")
    assert entry["prompt_id"] == done
    assert (entry["result"], entry["state"], entry["attempt"]) == ("copied", "copied", 0)


async def test_a_job_that_is_deleted_stays_copied_and_one_asset_that_is_deleted_goes(
    gate: Running, s3: S3Server
) -> None:
    forgotten, deleted = await made(gate), await made(gate)
    await settled(gate, 2)
    assert (await ask(gate, "POST", "/history", json={"delete": [forgotten]})).status == 200
    asset = (await output_of(gate, deleted))["id"]
    async with gate.call("DELETE", f"/api/v2/assets/{asset}", "alice") as answer:
        assert answer.status == 204
    [left] = await eventually(gate, lambda found: len(found) == 1)
    assert left.prompt_id == forgotten
    assert [key.split("/")[3] for key in s3.objects()] == [forgotten]


async def test_what_is_deleted_before_it_is_copied_never_comes_to_be(gate: Running, s3: S3Server) -> None:
    s3.freeze()
    done = await made(gate)
    asset = (await output_of(gate, done))["id"]
    await eventually(gate, lambda found: any(copy.asset_id and copy.gate for copy in found))
    async with gate.call("DELETE", f"/api/v2/assets/{asset}", "alice") as answer:
        assert answer.status == 204
    s3.thaw()
    await eventually(gate, lambda found: not found)
    assert s3.objects() == {}


async def test_a_gate_without_storage_writes_nothing_down(tmp_path: Path, comfy: StandIn) -> None:
    async with running_gate(tmp_path, comfy.url) as gate:
        done = await made(gate)
        assert await copies(gate) == []
        assert "link" not in await output_of(gate, done)


async def test_webhooks_have_the_links_of_what_is_copied(gate: Running) -> None:
    done = await made(gate)
    await settled(gate, 1)
    views: Any = gate.gate._followers.webhooks._views
    found = await views.find("alice", done)
    assert found.outputs[0].link is not None
    assert "X-Amz" not in repr(found)
    assert await views.find("mallory", done) is None


async def test_several_files_of_one_job_have_a_copy_each(gate: Running, s3: S3Server) -> None:
    graph = saving(unique())
    graph["1"]["inputs"]["batch_size"] = 3
    done = await submitted(gate, graph)
    await until(gate, done, "succeeded")
    found = await settled(gate, 3)
    assert len({copy.object_key for copy in found}) == len(s3.objects()) == 3
    assert {copy.state for copy in found} == {CopyState.COPIED}
