"""Outputs that a function gives in another form, whole requests: the answers tell of what is downloaded, and the original stays where it was."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from PIL import Image

from proxy.steps import stored_files
from tests.contract.conftest import REAL_URL
from tests.contract.driver import png
from tests.harness import running_gate
from tests.proxy.functions.calls import PAINT, PAINT_TOML, Caller, calling, write_functions
from tests.proxy.functions.conftest import KINDS
from tests.proxy.v2.assets.sdk import Standing

WEBP = PAINT_TOML + 'convert = "webp"\nquality = 60\n'
BOTH = WEBP + '[outputs.full]\nnode = "2"\n[outputs.small]\nnode = "2"\nconvert = "jpeg"\n'
TALK = {
    "1": {"class_type": "PrimitiveString", "inputs": {"value": "words"}},
    "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
}
POLICIES = '\n[policies.talking]\nallow = ["PreviewAny", "PrimitiveString"]\n'
TALK_TOML = 'policy = "talking"\n[parameters.words]\ntype = "text"\nfills = ["1.value"]\n[outputs.said]\nnode = "2"\nconvert = "png"\n'
BARE = PAINT_TOML + "strip = true\n"
FUNCTIONS = {"bare": (BARE, PAINT), "paint": (WEBP, PAINT), "both": (BOTH, PAINT), "talk": (TALK_TOML, TALK)}
TENANTS = '[tenants.alice]\nfunctions = ["*"]\n[tenants.mallory]\nfunctions = ["*"]\n'
WAITING = {"Prefer": "wait=60"}


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Standing]:
    if request.param == "real":
        write_functions(tmp_path, FUNCTIONS)
        async with running_gate(tmp_path, REAL_URL, tenants=TENANTS, more=POLICIES) as gate:
            yield Standing(gate, None, None)
    else:
        async with calling(
            tmp_path, is_seen=request.param == "seen", functions=FUNCTIONS, tenants=TENANTS, more=POLICIES
        ) as found:
            yield found


@pytest.fixture
async def seen(tmp_path: Path) -> AsyncIterator[Standing]:
    async with calling(tmp_path, functions=FUNCTIONS, tenants=TENANTS, more=POLICIES) as found:
        yield found


def kind_of(data: bytes) -> str | None:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.format


async def made(caller: Caller, name: str = "paint", query: str = "", **arguments: Any) -> Any:
    answer = await caller.run(name, arguments, query, **WAITING)
    assert (answer.status, answer.body["status"]) == (200, "succeeded"), answer.raw
    return answer.body


async def test_the_answer_tells_of_what_is_downloaded(world: Standing) -> None:
    alice = Caller(world.gate)
    job = await made(alice)
    (told,) = job["outputs"]
    answer = await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/picture")
    assert (answer.status, kind_of(answer.raw)) == (200, "WEBP")
    assert (told["size_bytes"], told["hash"]) == (len(answer.raw), f"blake3:{blake3(answer.raw).hexdigest()}")
    assert (told["content_type"], told["error"]) == ("image/webp", None)
    assert answer.headers["Content-Type"] == "image/webp"
    assert told["name"].endswith("_.webp")
    assert told["name"] in answer.headers["Content-Disposition"]
    assert (await alice.job(job["id"]))["outputs"] == [told]
    # By whatever name.
    for name in ("2", told["name"], told["name"].replace(".webp", ".png")):
        assert (await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/{name}")).raw == answer.raw
    # What the function does not name is as it is.
    assert kind_of((await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/3")).raw) == "PNG"


async def test_the_original_stays_where_it_was(world: Standing) -> None:
    alice = Caller(world.gate)
    job = await made(alice)
    shown = (await alice.ask("GET", f"/api/v2/jobs/{job['id']}")).body["outputs"]
    original = next(each for each in shown if each["node_id"] == "2")
    assert original["id"] == job["outputs"][0]["id"]
    content = await alice.ask("GET", f"/api/v2/assets/{original['id']}/content")
    assert content.raw.startswith(png()[:8])
    assert original["hash"] == f"blake3:{blake3(content.raw).hexdigest()}"
    native = await alice.ask("GET", f"/view?filename={original['name']}&type=output")
    assert native.raw == content.raw


async def test_a_type_is_chosen_by_what_is_given(world: Standing) -> None:
    alice = Caller(world.gate)
    webp = await alice.run("paint", Accept="image/webp")
    assert (webp.status, kind_of(webp.raw), webp.headers["Content-Type"]) == (200, "WEBP", "image/webp")
    assert (await alice.ask("GET", webp.headers["Content-Location"])).raw == webp.raw
    refused = await alice.run("paint", Accept="image/png")
    assert refused.refusal == (406, "not_acceptable")
    assert "it made image/webp" in refused.body["error"]["message"]


async def test_one_file_in_several_forms(seen: Standing) -> None:
    alice = Caller(seen.gate)
    job = await made(alice, "both")
    types = {each["output"]: each["content_type"] for each in job["outputs"]}
    assert types == {"picture": "image/webp", "full": "image/png", "small": "image/jpeg"}
    for each in job["outputs"]:
        answer = await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/{each['output']}")
        assert (each["size_bytes"], answer.headers["Content-Type"]) == (len(answer.raw), types[each["output"]])
    assert kind_of((await alice.run("both", Accept="image/jpeg")).raw) == "JPEG"


async def test_ranges_and_validators(seen: Standing) -> None:
    alice = Caller(seen.gate)
    job = await made(alice)
    path = f"/gate/jobs/{job['id']}/outputs/picture"
    whole = await alice.ask("GET", path)
    part = await alice.ask("GET", path, headers={"Range": "bytes=4-7", "If-Range": whole.headers["ETag"]})
    assert (part.status, part.raw) == (206, whole.raw[4:8])
    assert (await alice.ask("GET", path, headers={"If-None-Match": whole.headers["ETag"]})).status == 304
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in whole.headers["Content-Security-Policy"]
    # Made anew it is the same.
    for file in (seen.gate.config_file.parent / "state" / "converted").glob("*/*"):
        file.unlink()
    again = await alice.ask("GET", path)
    assert (again.raw, again.headers["ETag"]) == (whole.raw, whole.headers["ETag"])


async def test_a_file_without_its_workflow(world: Standing) -> None:
    alice = Caller(world.gate)
    job = await made(alice, "bare")
    (told,) = job["outputs"]
    bare = await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/picture")
    original = await alice.ask("GET", f"/api/v2/assets/{told['id']}/content")
    assert (told["size_bytes"], told["hash"]) == (len(bare.raw), f"blake3:{blake3(bare.raw).hexdigest()}")
    assert (told["name"][-5:], bare.headers["Content-Type"]) == ("_.png", "image/png")
    assert b"EmptyImage" in original.raw
    assert b"EmptyImage" not in bare.raw
    with Image.open(io.BytesIO(bare.raw)) as picture, Image.open(io.BytesIO(original.raw)) as before:
        assert picture.tobytes() == before.tobytes()
    assert (await alice.run("bare", Accept="image/png")).status == 200


async def test_what_is_no_picture_says_so_and_the_job_has_succeeded(seen: Standing) -> None:
    alice = Caller(seen.gate)
    job = await made(alice, "talk", words="hello")
    (told,) = job["outputs"]
    assert "is no picture (text/plain)" in told["error"]
    assert (told["size_bytes"], told["hash"]) == (0, None)
    for name in ("said", "2"):
        answer = await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/{name}")
        assert answer.refusal == (422, "conversion_failed")
    assert (await alice.run("talk", {"words": "x"}, Accept="text/plain")).refusal == (422, "conversion_failed")
    assert (await alice.ask("GET", f"/api/v2/assets/{told['id']}/content")).raw == b"hello"


async def test_a_picture_of_too_many_pixels_says_so(tmp_path: Path) -> None:
    async with calling(
        tmp_path, functions=FUNCTIONS, tenants=TENANTS, more=POLICIES, server="max_picture_pixels = 2000"
    ) as world:
        alice = Caller(world.gate)
        job = await made(alice, width=512)
        assert "at most 2000 are converted" in job["outputs"][0]["error"]
        answer = await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/picture")
        assert answer.refusal == (422, "conversion_failed")
        assert (await alice.run("paint", {"width": 512}, Accept="image/webp")).refusal == (422, "conversion_failed")
        assert (await made(alice, width=16))["outputs"][0]["error"] is None


async def test_a_neighbours_is_as_none(seen: Standing) -> None:
    alice, mallory = Caller(seen.gate), Caller(seen.gate, "mallory")
    job = await made(alice)
    name = job["outputs"][0]["name"]
    same = {"X-Request-Id": "same"}
    for path in ("outputs/picture", f"outputs/{name}", "outputs/2"):
        foreign = await mallory.ask("GET", f"/gate/jobs/{job['id']}/{path}", headers=same)
        nothing = await mallory.ask("GET", f"/gate/jobs/00000000-0000-4000-8000-000000000000/{path}", headers=same)
        assert (foreign.status, foreign.raw) == (404, nothing.raw)
    # The same picture of hers is a file of her own.
    await made(mallory)
    folders = {file.parent.name for file in (seen.gate.config_file.parent / "state" / "converted").glob("*/*")}
    assert folders == {"alice", "mallory"}


async def test_what_is_deleted_is_gone_in_every_form(seen: Standing) -> None:
    alice = Caller(seen.gate)
    job = await made(alice)
    kept = seen.gate.config_file.parent / "state" / "converted"
    assert list(kept.glob("*/*"))
    assert (await alice.ask("DELETE", f"/api/v2/assets/{job['outputs'][0]['id']}")).status == 204
    assert (await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/picture")).refusal == (404, "not_found")
    while list(kept.glob("*/*")):
        await asyncio.sleep(0.01)


async def test_after_a_restart_of_the_gate_it_is_there(tmp_path: Path) -> None:
    async def seen_by(world: Standing) -> list[tuple[str, int]]:
        kept = world.gate.config_file.parent / "state" / "converted"
        return sorted((file.name, file.stat().st_ino) for file in kept.glob("*/*"))

    async with calling(tmp_path, functions=FUNCTIONS, tenants=TENANTS, more=POLICIES) as world:
        job = await made(Caller(world.gate))
        before = await seen_by(world)
    async with calling(tmp_path, functions=FUNCTIONS, tenants=TENANTS, more=POLICIES) as world:
        alice = Caller(world.gate)
        assert (await alice.job(job["id"]))["outputs"] == [
            each | {"url": each["url"].replace(each["url"].split("/gate/")[0], world.gate.url)}
            for each in job["outputs"]
        ]
        answer = await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/picture")
        assert len(answer.raw) == job["outputs"][0]["size_bytes"]
        assert await seen_by(world) == before


async def test_a_file_that_is_gone_says_so_though_its_job_is_there(seen: Standing) -> None:
    alice = Caller(seen.gate)
    answer = await alice.run("paint")
    job = await alice.until(answer.body["id"], "succeeded")
    for file in (seen.gate.config_file.parent / "state" / "converted").glob("*/*"):
        file.unlink()
    assert seen.directory is not None
    for file in seen.directory.rglob("output/tenants/alice/*.png"):
        file.unlink()
    gone = await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/picture")
    assert gone.refusal == (404, "not_found")
    assert "not there any more" in (await alice.job(job["id"]))["outputs"][0]["error"]


async def test_who_waits_too_long_is_told_to_come_again(seen: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = Caller(seen.gate)
    job = await made(alice)
    monkeypatch.setattr(stored_files, "CONVERTED_S", 0.0)
    for file in (seen.gate.config_file.parent / "state" / "converted").glob("*/*"):
        file.unlink()
    answer = await alice.ask("GET", f"/gate/jobs/{job['id']}/outputs/picture")
    assert answer.refusal == (429, "conversion_pending")
    # Who calls is told of the job instead, which was taken and has ended.
    called = await alice.run("paint", {"color": 3}, Accept="image/webp")
    assert (called.status, called.body["status"]) == (202, "succeeded")
    assert called.headers["Location"] == f"/gate/jobs/{called.body['id']}"
    assert "Content-Location" not in called.headers
    assert "Retry-After" in answer.headers


async def test_conversions_are_counted(seen: Standing) -> None:
    alice = Caller(seen.gate)
    for name in ("paint", "paint", "bare"):
        await made(alice, name)
    await made(alice, "talk", words="a text")
    async with seen.gate.session.get(f"{seen.gate.ops_url}/metrics") as response:
        text = await response.text()
    assert 'comfygate_conversions_total{format="webp",result="made"} 2.0' in text
    assert 'comfygate_conversions_total{format="strip",result="made"} 1.0' in text
    assert 'comfygate_conversion_seconds_count{format="webp"} 2.0' in text
    assert "comfygate_conversions_waiting 0.0" in text
    assert 'format="png"' not in text, "a text is no picture: nothing was converted"
