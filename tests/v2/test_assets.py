"""What goes in and comes out: names, outputs as inputs, links to bytes."""

from __future__ import annotations

import hashlib

import pytest

from tests.contract.driver import node
from tests.v2.pack import showing
from tests.v2.sdk import WRITTEN_APART
from tests.v2.world import World, as_bytes, decoded, new_picture, pixels, saving_new, with_picture

SDKS = WRITTEN_APART

BIG_BYTES = 20_000_000
"""More than the buffers between two programs hold."""
NAMES = (
    'a "quoted" name.png',
    "it's 100% #1 & +x; ok.png",
    "größe 漢字 🎨.png",
    "sub dir/ünder.png",
    "input/sub/plain.png",
)


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_arrives_as_it_was_given(world: World, kind: str, name: str) -> None:
    sdk, picture = await world.sdk(kind), new_picture()
    asset = await sdk.call("upload", **as_bytes(picture, name))
    assert (await sdk.call("asset", asset=asset["id"]))["file_path"] == name
    job = await sdk.call("run", graph=with_picture({"$asset": asset["id"]}))
    read = await sdk.call("read", job=job["id"], output=job["outputs"][0]["id"])
    assert pixels(decoded(read)) == pixels(picture)
    shown = (await sdk.call("workflow", job=job["id"]))["graph"]["1"]["inputs"]["image"]
    assert shown.rpartition("/")[2] == name.rpartition("/")[2]


async def test_two_files_of_one_name_do_not_mix(world: World, kind: str) -> None:
    sdk, pictures = await world.sdk(kind), [new_picture(), new_picture()]
    assets = [await sdk.call("upload", **as_bytes(picture, "same.png")) for picture in pictures]
    assert assets[0]["id"] != assets[1]["id"]
    for asset, picture in zip(assets, pictures, strict=True):
        job = await sdk.call("run", graph=with_picture({"$asset": asset["id"]}))
        read = await sdk.call("read", job=job["id"], output=job["outputs"][0]["id"])
        assert pixels(decoded(read)) == pixels(picture)


async def test_an_output_and_a_preview_are_inputs_of_the_next_job(world: World, kind: str) -> None:
    sdk, graph = await world.sdk(kind), saving_new("deep/er/v2")
    graph["3"] = node("PreviewImage", images=["1", 0])
    first = await sdk.call("run", graph=graph)
    assert {each["node_id"] for each in first["outputs"]} == {"2", "3"}
    for output in first["outputs"]:
        read = decoded(await sdk.call("read", job=first["id"], output=output["id"]))
        asset = await sdk.call("asset", asset=output["id"])
        assert (asset["id"], asset["job_id"]) == (output["id"], first["id"])
        second = await sdk.call("run", graph=with_picture({"$asset": output["id"]}))
        again = await sdk.call("read", job=second["id"], output=second["outputs"][0]["id"])
        assert pixels(decoded(again)) == pixels(read)


async def test_an_output_is_deleted_like_an_asset(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    job = await sdk.call("run", graph=saving_new())
    (output,) = job["outputs"]
    await sdk.call("delete", asset=output["id"])
    assert (await sdk.refused("delete", asset=output["id"])).status == 404
    assert (await sdk.refused("read", job=job["id"], output=output["id"])).status == 404
    error = await sdk.refused("submit", graph=with_picture({"__type": "core/ASSET", "info": {"id": output["id"]}}))
    assert error.code == "missing_asset"


async def test_a_cached_job_has_its_outputs_too(world: World, kind: str) -> None:
    sdk, graph = await world.sdk(kind), saving_new()
    first, second = await sdk.call("run", graph=graph), await sdk.call("run", graph=graph)
    assert [len(each["outputs"]) for each in (first, second)] == [1, 1]
    reads = [await sdk.call("read", job=each["id"], output=each["outputs"][0]["id"]) for each in (first, second)]
    assert reads[0] == reads[1]


async def test_a_link_to_bytes_is_absolute_and_leaves_no_error(world: World, kind: str) -> None:
    """The SDK opens the bytes, reads the head and hangs up. The link is the gate's own: it wants the key."""
    sdk = await world.sdk(kind)
    if world.comfy is not None:
        shown = {"images": [{"filename": "big.bin", "subfolder": "", "type": "output", "size": BIG_BYTES}]}
        job = await sdk.call("run", graph=showing(shown))
    else:
        job = await sdk.call("run", graph=saving_new())
    (output,) = job["outputs"]
    link = await sdk.call("link", job=job["id"], output=output["id"])
    assert link["url"] == f"{world.recorder.url}/api/v2/assets/{output['id']}/content"
    assert link["expires_at"] is None
    if kind != "node":  # which has no links of uploads
        big = new_picture() + b"x" * (BIG_BYTES // 10)  # what stands behind a picture's end is no part of it
        asset = await sdk.call("upload", **as_bytes(big, "big.png"))
        link = await sdk.call("asset_link", asset=asset["id"])
        async with world.gate.session.get(link["url"], headers=world.gate.headers("alice")) as answer:
            assert hashlib.sha256(await answer.read()).digest() == hashlib.sha256(big).digest()
            assert answer.headers["Accept-Ranges"] == "bytes"
            assert "Content-Encoding" not in answer.headers
    async with world.gate.session.get(link["url"]) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (401, "unauthorized")
    await sdk.call("get", job=job["id"])
    log = world.gate.log.getvalue().decode()
    assert "Traceback" not in log
    assert '"level":"error"' not in log.replace(" ", "")
