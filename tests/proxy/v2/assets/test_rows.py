"""Assets that are there: read, found by their hash, sent, used in workflows, deleted, expired."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.contract.driver import png, slow
from tests.proxy.v2.assets.sdk import ASSETS, Answer, Client, Standing, form, hash_of, picture, standing

NOWHERE = "00000000-0000-4000-8000-000000000000"


async def submit(client: Client, graph: Any) -> Answer:
    return await client.ask("POST", "/api/v2/jobs", json={"workflow": graph})


def loading(asset: Any) -> Any:
    reference = {"__type": "core/ASSET", "info": {"id": asset["id"], "hash": asset["hash"], "file_path": "x.png"}}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": reference}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "made"}},
    }


async def until_ended(client: Client, job_id: str) -> Any:
    async with asyncio.timeout(240):
        while True:
            job = (await client.ask("GET", f"/api/v2/jobs/{job_id}")).json()
            if job["completed_at"] is not None:
                return job
            await asyncio.sleep(0.05)


async def test_a_record_is_made_from_a_hash(world: Standing) -> None:
    data = picture()
    first, digest = await world.alice.stored(data, tags="a"), hash_of(data)
    assert await world.alice.has(digest) == 200
    found = await world.alice.ask("GET", f"{ASSETS}/by-hash/{digest.replace(':', '%3A')}")
    assert (found.status, found.json()["id"]) == (200, first["id"])
    made = await world.alice.from_hash(digest, file_path="again.png", tags=["b"], expires_in=3600)
    assert made.status == 201
    assert made.json()["created_new"] is False
    assert (made.json()["file_path"], made.json()["hash"], made.json()["size_bytes"]) == (
        "again.png",
        digest,
        len(data),
    )
    assert made.json()["expires_at"] is not None
    assert made.json()["id"] != first["id"]
    assert (await world.alice.content(made.json()["id"])).body == data
    same = await world.alice.from_hash(digest, file_path="again.png", tags=["b"], expires_in=60)
    assert (same.status, same.json()["id"]) == (200, made.json()["id"]), "it ends later than asked for"
    plain = await world.alice.from_hash(digest)
    assert plain.json()["file_path"] in ("photo.png", "again.png")


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({"hash": hash_of(b"nobody's")}, 404, "blob_not_found"),
        ({"hash": "blake3:AB"}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
        ([], 400, "invalid_request"),
        ({"hash": hash_of(b"x"), "file_path": "models/x.png"}, 403, "forbidden"),
        ({"hash": hash_of(b"x"), "file_path": "sub/"}, 422, "invalid_request"),
        ({"hash": hash_of(b"x"), "file_path": 1}, 422, "invalid_request"),
        ({"hash": hash_of(b"x"), "tags": "a"}, 422, "invalid_request"),
        ({"hash": hash_of(b"x"), "expires_in": 59}, 422, "invalid_request"),
        ({"hash": hash_of(b"x"), "expires_in": True}, 422, "invalid_request"),
    ],
)
async def test_what_no_record_is_made_from(seen: Standing, document: Any, status: int, code: str) -> None:
    answer = await seen.alice.ask("POST", f"{ASSETS}/from-hash", json=document)
    assert (answer.status, answer.code) == (status, code), answer.body


async def test_content_has_ranges_and_no_coding(world: Standing) -> None:
    data = picture() + b"x" * 300_000
    asset = await world.alice.stored(data)
    whole = await world.alice.content(asset["id"], Accept_Encoding="gzip, deflate")
    assert (whole.status, whole.body) == (200, data)
    head = await world.alice.content(asset["id"], "HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(data)))
    part = await world.alice.content(asset["id"], Range="bytes=10-19")
    assert (part.status, part.body) == (206, data[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(data)}"
    rest = await world.alice.content(asset["id"], Range=f"bytes={len(data) - 5}-{len(data) + 100}")
    assert (rest.status, rest.body) == (206, data[-5:])
    beyond = await world.alice.content(asset["id"], Range=f"bytes={len(data)}-")
    assert beyond.status == 416
    for answer in (whole, head, part, rest):
        assert "Content-Encoding" not in answer.headers
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["Content-Security-Policy"] == "sandbox"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "private" in answer.headers["Cache-Control"]
        assert answer.headers["Content-Disposition"] == 'filename="photo.png"'


async def test_a_workflow_uses_an_asset_and_its_output_is_one(world: Standing) -> None:
    """Named with a quote and other letters; what comes of it is an asset in its turn."""
    asset = await world.alice.stored(png((1, 2, 3)) + os.urandom(8), 'ü "q".png')
    answer = await submit(world.alice, loading(asset))
    assert answer.status == 201, answer.body
    job = await until_ended(world.alice, answer.json()["id"])
    assert job["status"] == "succeeded", job


async def test_the_last_record_takes_the_file_along(world: Standing) -> None:
    data = picture()
    first = await world.alice.stored(data)
    second = (await world.alice.from_hash(hash_of(data), file_path="b.png")).json()
    assert (await world.alice.delete(first["id"])).status == 204
    again = await world.alice.delete(first["id"])
    assert (again.status, again.code) == (404, "asset_not_found")
    assert (await world.alice.get(first["id"])).code == "asset_not_found"
    assert (await world.alice.content(first["id"])).code == "asset_not_found"
    assert (await world.alice.content(second["id"])).body == data
    deleted = await world.alice.delete(second["id"])
    assert (deleted.status, deleted.body) == (204, b"")
    assert await world.alice.has(hash_of(data)) == 404
    if world.directory is not None:
        assert len(world.files()) == (0 if world.gate.gate.dependencies.storage.disk else 1)
    assert (await world.alice.upload(data)).status == 201


async def test_an_asset_that_a_job_uses_stays(seen: Standing) -> None:
    data = png()
    asset = await seen.alice.stored(data)
    other = (await seen.alice.from_hash(hash_of(data), file_path="b.png")).json()
    graph = {**slow(), "9": {"class_type": "LoadImage", "inputs": loading(asset)["1"]["inputs"]}}
    graph["8"] = {"class_type": "PreviewImage", "inputs": {"images": ["9", 0]}}
    answer = await submit(seen.alice, graph)
    assert answer.status == 201, answer.body
    for each in (asset, other):
        refused = await seen.alice.delete(each["id"])
        assert (refused.status, refused.code) == (409, "asset_in_use")
    job_id = answer.json()["id"]
    assert (await seen.alice.ask("POST", f"/api/v2/jobs/{job_id}/cancel")).status == 200
    await until_ended(seen.alice, job_id)
    assert [(await seen.alice.delete(each["id"])).status for each in (asset, other)] == [204, 204]
    assert seen.files() == []


async def test_a_file_that_is_gone_is_no_asset(seen: Standing) -> None:
    data = picture()
    asset = await seen.alice.stored(data)
    [file] = seen.files()
    file.unlink()
    assert (await seen.alice.content(asset["id"])).status == 404
    assert (await seen.alice.get(asset["id"])).status == 404
    assert await seen.alice.has(hash_of(data)) == 404
    assert (await seen.alice.from_hash(hash_of(data))).code == "blob_not_found"
    assert (await submit(seen.alice, loading(asset))).code == "missing_asset"
    assert (await seen.alice.stored(data))["created_new"], "it is stored anew"
    assert (await seen.alice.delete(asset["id"])).status == 204


async def test_an_unseen_file_that_is_gone_is_not_claimed(tmp_path: Path) -> None:
    """ComfyUI is asked, where the bytes are what matters."""
    async with standing(tmp_path, is_seen=False) as world:
        data = picture()
        asset = await world.alice.stored(data)
        [file] = world.files()
        file.unlink()
        for method in ("GET", "HEAD"):
            assert (await world.alice.content(asset["id"], method)).status == 404
        assert (await world.alice.content(asset["id"])).code == "asset_not_found"
        assert await world.alice.has(hash_of(data)) == 404
        assert (await world.alice.upload(data)).status == 201


async def overwritten(world: Standing, data: bytes) -> Any:
    """An asset whose file the tenant has put other bytes into, by ComfyUI's own route."""
    asset = await world.alice.stored(data)
    folder = f"api-v2/{asset['id']}"
    body = form(picture(), None).replace(b'name="file"', b'name="image"')
    body = body.replace(b"\r\nContent-Type: image/png", b"", 1)
    fields = b"".join(
        b'--sdk-boundary\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % pair
        for pair in ((b"subfolder", folder.encode()), (b"overwrite", b"true"))
    )
    headers = {"Content-Type": "multipart/form-data; boundary=sdk-boundary"}
    answer = await world.alice.ask("POST", "/upload/image", data=fields + body, headers=headers)
    assert answer.json() == {"name": "photo.png", "subfolder": folder, "type": "input"}
    return asset


async def test_bytes_that_were_overwritten_are_not_claimed(world: Standing) -> None:
    data = picture()
    asset = await overwritten(world, data)
    assert (await world.alice.content(asset["id"])).status == 404
    assert await world.alice.has(hash_of(data)) == 404
    assert (await world.alice.from_hash(hash_of(data))).code == "blob_not_found"
    again = await world.alice.stored(data)
    assert (await world.alice.content(again["id"])).body == data
    assert (await world.alice.delete(asset["id"])).status == 204
    if world.directory is not None:
        assert len(world.files()) == 2, "what was put there by another way stays"


async def test_a_native_upload_of_the_same_name_is_another_file(world: Standing) -> None:
    data = picture()
    asset = await world.alice.stored(data)
    body = form(picture(), None).replace(b'name="file"', b'name="image"')
    headers = {"Content-Type": "multipart/form-data; boundary=sdk-boundary"}
    answer = await world.alice.ask("POST", "/upload/image", data=body, headers=headers)
    assert answer.status == 200
    assert (await world.alice.content(asset["id"])).body == data


async def test_an_asset_ends_when_it_was_said_to(seen: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    data, kept = picture(), picture()
    asset, other = await seen.alice.stored(data, expires_in=60), await seen.alice.stored(kept, expires_in=200)
    assets: Any = seen.gate.gate.dependencies.v2.assets
    now_s = assets._clock()
    monkeypatch.setattr(assets, "_clock", lambda: now_s + 61)
    assert (await seen.alice.get(asset["id"])).status == 404
    assert (await seen.alice.content(asset["id"])).status == 404
    assert (await seen.alice.delete(asset["id"])).status == 404
    assert await seen.alice.has(hash_of(data)) == 404
    assert (await submit(seen.alice, loading(asset))).code == "missing_asset"
    await assets.sweep("alice")
    assert [path.parent.name for path in seen.files()] == [other["id"]]
    assert (await seen.alice.content(other["id"])).body == kept


async def test_nothing_is_a_404(world: Standing) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content"), ("HEAD", "/content")):
        answer = await world.alice.ask(method, f"{ASSETS}/{NOWHERE}{path}")
        assert answer.status == 404
        if method != "HEAD":
            assert answer.code == "asset_not_found"
    for digest in (hash_of(b"nobody's"), "content", "blake3:00"):
        answer = await world.alice.ask("GET", f"{ASSETS}/by-hash/{digest}")
        assert (answer.status, answer.code) == (404, "blob_not_found")
