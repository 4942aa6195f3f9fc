"""POST /api/v2/assets: what is stored, under which record, and what is not."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.contract.driver import png
from tests.proxy.v2.assets.sdk import BOUNDARY, Standing, field, file_part, form, hash_of, picture, standing

ODD_NAMES = [
    'a"b.png',
    "two words.png",
    "grün 日本 🙂.png",
    "semi;colon;s.png",
    "'single'.png",
    "100%25.png",
    "line\u2028end.png",
    "con.png",
    "input/sub/x.png",
]


async def test_an_upload_is_the_contracts_asset(world: Standing) -> None:
    data = picture()
    answer = await world.alice.upload(data, expected_hash=hash_of(data))
    assert answer.status == 201, answer.body
    asset = answer.json()
    assert asset == {
        "id": str(uuid.UUID(asset["id"])),
        "hash": hash_of(data),
        "size_bytes": len(data),
        "content_type": "image/png",
        "file_path": "photo.png",
        "created_at": asset["created_at"],
        "expires_at": None,
        "url": f"{world.gate.url}/api/v2/assets/{asset['id']}/content",
        "url_expires_at": asset["url_expires_at"],
        "job_id": None,
        "tags": [],
        "created_new": True,
    }
    assert asset["created_at"].endswith("Z")
    assert answer.headers["X-Comfy-Request-Id"]
    again = await world.alice.get(asset["id"])
    assert again.status == 200
    assert again.json() | {"url_expires_at": ""} == {
        key: value for key, value in asset.items() if key != "created_new"
    } | {"url_expires_at": ""}
    assert (await world.alice.content(asset["id"])).body == data


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_a_name_arrives_unchanged(world: Standing, name: str) -> None:
    """In the field and raw in the head of the part, as the SDK for Python writes it."""
    data = picture()
    answer = await world.alice.post(form(data, name, filename=name.rpartition("/")[2]))
    assert answer.status == 201, answer.body
    assert answer.json()["file_path"] == name
    got = await world.alice.content(answer.json()["id"])
    assert (got.status, got.body, got.headers["Content-Type"]) == (200, data, "image/png")


async def test_the_parts_name_counts_where_no_path_names_a_file(world: Standing) -> None:
    for path, shown in ((None, "photo.png"), ("", "photo.png"), ("input/", "input/photo.png")):
        answer = await world.alice.upload(picture(), path)
        assert (answer.status, answer.json().get("file_path")) == (201, shown)


async def test_known_bytes_are_not_stored_again(world: Standing) -> None:
    data = picture()
    first = await world.alice.stored(data)
    before = world.files() if world.directory is not None else []
    same = await world.alice.upload(data)
    assert (same.status, same.json()["created_new"], same.json()["id"]) == (200, False, first["id"])
    other = await world.alice.upload(data, "other.png", tags="x")
    assert (other.status, other.json()["created_new"]) == (200, False)
    assert other.json()["id"] != first["id"]
    assert (other.json()["file_path"], other.json()["hash"], other.json()["tags"]) == (
        "other.png",
        hash_of(data),
        ["x"],
    )
    assert (await world.alice.content(other.json()["id"])).body == data
    if world.directory is not None:
        assert world.files() == before
        assert len(before) == 1


async def test_a_record_that_ends_sooner_is_not_the_same(world: Standing) -> None:
    data = picture()
    short = await world.alice.stored(data, expires_in=100)
    assert short["expires_at"] is not None
    assert short["url_expires_at"] <= short["expires_at"]
    lasting = (await world.alice.upload(data)).json()
    assert lasting["id"] != short["id"]
    assert lasting["expires_at"] is None
    assert (await world.alice.upload(data, expires_in=60)).json()["id"] in (short["id"], lasting["id"])


async def test_another_hash_than_expected_stores_nothing(world: Standing) -> None:
    data = picture()
    answer = await world.alice.upload(data, expected_hash=hash_of(b"else"))
    assert (answer.status, answer.code) == (409, "hash_mismatch")
    assert await world.alice.has(hash_of(data)) == 404
    assert await world.alice.has(hash_of(b"else")) == 404
    if world.directory is not None:
        assert world.files() == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (form(png(), "models/checkpoints/x.safetensors"), 403, "forbidden"),
        (form(png(), "output/x.png"), 422, "invalid_request"),
        (form(png(), "Temp/x.png"), 422, "invalid_request"),
        (form(png(), "../x.png"), 422, "invalid_request"),
        (form(png(), "x.png [output]"), 422, "invalid_request"),
        (form(png(), "a\x00b.png"), 422, "invalid_request"),
        (form(b"#!/bin/sh", "x.sh"), 403, "forbidden"),
        (form(b"<html>", "x.png"), 403, "forbidden"),
        (form(b"", "x.png"), 403, "forbidden"),
        (form(png(), more=[("expires_in", "59")]), 422, "invalid_request"),
        (form(png(), more=[("expires_in", "604801")]), 422, "invalid_request"),
        (form(png(), more=[("expires_in", "1e3")]), 422, "invalid_request"),
        (form(png(), more=[("expected_hash", "sha256:00")]), 422, "invalid_request"),
        (form(png(), more=[("tags", "a\nb")]), 422, "invalid_request"),
        (form(png(), more=[("content_type", "image/jpeg")]), 422, "invalid_request"),
        (
            file_part("x.png", png()) + field("file_path", "y.png") + f"--{BOUNDARY}--\r\n".encode(),
            422,
            "invalid_request",
        ),
        (file_part("x.png", png()) * 2 + f"--{BOUNDARY}--\r\n".encode(), 422, "invalid_request"),
        (file_part("x.png", png(), "image") + f"--{BOUNDARY}--\r\n".encode(), 422, "invalid_request"),
        (field("file_path", "y.png") + f"--{BOUNDARY}--\r\n".encode(), 422, "invalid_request"),
        (field("file", "text") + f"--{BOUNDARY}--\r\n".encode(), 422, "invalid_request"),
        (form(png())[:-20], 400, "invalid_request"),
        (b"nothing", 400, "invalid_request"),
    ],
)
async def test_what_is_refused_stores_nothing(seen: Standing, body: bytes, status: int, code: str) -> None:
    answer = await seen.alice.post(body)
    assert (answer.status, answer.code) == (status, code), answer.body
    assert seen.files() == []
    assert (await seen.alice.stored(picture()))["created_new"], "the next one is well"


async def test_the_quota_and_the_largest_upload_hold(tmp_path: Path) -> None:
    server = 'max_upload_bytes = "200KiB"'
    async with standing(tmp_path, is_seen=True, more='storage = "100KiB"', server=server) as world:
        alice, noise = world.alice, picture()
        assert (await alice.upload(noise + b"x" * 150_000)).status == 507
        assert (await alice.upload(noise + b"x" * 150_000)).code == "storage_full"
        assert world.files() == []
        await alice.stored(noise + b"x" * 90_000)
        assert (await alice.upload(noise + b"x" * 50_000)).status == 507
        known = await alice.upload(noise + b"x" * 5_000)
        assert known.status == 201
    async with standing(tmp_path / "other", is_seen=True, server=server) as world:
        answer = await world.alice.upload(picture() + b"x" * 300_000)
        assert (answer.status, answer.code) == (413, "payload_too_large")
        assert world.files() == []


async def test_the_number_and_the_bytes_of_uploads_are_bounded(tmp_path: Path) -> None:
    async with standing(tmp_path, is_seen=True, more='upload_bytes = "100KiB/minute"') as world:
        answers = [await world.alice.upload(picture() + b"x" * 70_000) for _ in range(2)]
        assert [answer.status for answer in answers] == [201, 429]
        assert answers[1].code == "rate_limited"
        assert int(answers[1].headers["Retry-After"]) > 0
        assert len(world.files()) == 1
        assert (await world.mallory.upload(picture())).status == 201, "a neighbour's bytes are not hers"


async def test_a_picture_of_many_pixels_is_refused(tmp_path: Path) -> None:
    async with standing(tmp_path, is_seen=True, server="max_picture_pixels = 100") as world:
        answer = await world.alice.upload(png(size=(20, 20)))
        assert (answer.status, answer.code) == (413, "payload_too_large")
        assert world.files() == []
