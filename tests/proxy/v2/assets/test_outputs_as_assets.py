"""What jobs made is an asset like others: sent, found by its hash, used again, deleted. Texts are in the gate's database."""

from __future__ import annotations

from typing import Any

import pytest

from policy.v2.assets import Asset
from proxy.persistence.operations import Operation, Statement
from proxy.v2.asset_rows import ASSET_COLUMNS, ASSET_PLACES, row_of
from tests.contract.driver import previewing, saving, unique
from tests.proxy.v2.assets.sdk import Client, Standing, hash_of
from tests.proxy.v2.assets.test_rows import loading, submit, until_ended


async def made_by(client: Client, graph: Any) -> Any:
    answer = await submit(client, graph)
    assert answer.status == 201, answer.body
    job = await until_ended(client, answer.json()["id"])
    assert job["status"] == "succeeded", job
    [output] = job["outputs"]
    return output


@pytest.mark.parametrize("graph", [saving(unique("made"), 0x336699), previewing(0x996633)], ids=["saved", "preview"])
async def test_an_output_is_sent_and_used(world: Standing, graph: Any) -> None:
    output = await made_by(world.alice, graph)
    asset = (await world.alice.get(output["id"])).json()
    assert {key: asset[key] for key in ("hash", "size_bytes", "job_id")} == {
        key: output[key] for key in ("hash", "size_bytes", "job_id")
    }
    got = await world.alice.content(output["id"])
    assert (got.status, got.headers["Content-Type"]) == (200, "image/png")
    assert (hash_of(got.body), len(got.body)) == (output["hash"], output["size_bytes"])
    assert (await world.mallory.content(output["id"])).status == 404
    again = await made_by(world.alice, loading({"id": output["id"], "hash": None}))
    assert again["id"] != output["id"]


async def test_an_output_is_deleted_with_its_file(seen: Standing) -> None:
    output = await made_by(seen.alice, saving("made", 0x123456))
    assert len(seen.files(folder="output")) == 1
    reused = await seen.alice.from_hash(output["hash"], file_path="mine.png")
    assert reused.status == 201
    assert (await seen.alice.delete(output["id"])).status == 204
    assert (await seen.alice.content(output["id"])).status == 404
    assert (await seen.alice.content(reused.json()["id"])).status == 200
    assert (await seen.alice.delete(reused.json()["id"])).status == 204
    assert seen.files(folder="output") == []


async def test_a_preview_is_no_place_for_an_upload(seen: Standing) -> None:
    """ComfyUI empties that folder when it starts."""
    output = await made_by(seen.alice, previewing(0x654321))
    data = (await seen.alice.content(output["id"])).body
    assert await seen.alice.has(output["hash"]) == 404
    assert (await seen.alice.upload(data)).status == 201


async def test_a_text_is_sent_in_parts(seen: Standing) -> None:
    body = "wörds and <script>".encode()
    asset = Asset(
        "11111111-0000-4000-8000-000000000000", "ü.txt", "text/plain", len(body), hash_of(body), 1.0, kind="text"
    )
    await seen.gate.gate.dependencies.v2.assets._database.run(put_text, asset, body)
    whole = await seen.alice.content(asset.asset_id)
    assert (whole.status, whole.body) == (200, body)
    assert whole.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert whole.headers["Content-Security-Policy"] == "sandbox"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    assert whole.headers["Content-Disposition"] == "filename*=UTF-8''%C3%BC.txt"
    part = await seen.alice.content(asset.asset_id, Range="bytes=2-4")
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, body[2:5], f"bytes 2-4/{len(body)}")
    beyond = await seen.alice.content(asset.asset_id, Range="bytes=100-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(body)}")
    conditional = await seen.alice.content(asset.asset_id, Range="bytes=2-4", If_Range='"other"')
    assert (conditional.status, conditional.body) == (200, body)
    head = await seen.alice.content(asset.asset_id, "HEAD", Range="bytes=2-4")
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(body)))
    assert (await seen.mallory.content(asset.asset_id)).status == 404
    refused = await submit(seen.alice, loading({"id": asset.asset_id, "hash": None}))
    assert (refused.status, refused.code) == (422, "missing_asset")
    assert (await seen.alice.delete(asset.asset_id)).status == 204
    assert (await seen.alice.content(asset.asset_id)).status == 404


def put_text(asset: Asset, body: bytes) -> Operation[None]:
    yield Statement(
        f"INSERT INTO assets ({ASSET_COLUMNS}, body) VALUES ({ASSET_PLACES}, ?)", (*row_of(asset, "alice"), body)
    )
