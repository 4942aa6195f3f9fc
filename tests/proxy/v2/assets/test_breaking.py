"""Uploads and downloads that break off, ComfyUI that fails, keys that are used twice, several at once: nothing is half done."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from proxy.persistence.operations import DatabaseUnavailable, Operation, Statement
from proxy.v2 import asset_operations
from tests.contract.driver import unique
from tests.harness import Running, running_gate
from tests.proxy.upstreams import GUARD_S, comfy_like
from tests.proxy.v2.assets.sdk import ASSETS, FORM, Client, Standing, form, hash_of, picture, standing


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of the gate's own."""
    return [each.getMessage() for each in caplog.records if each.name == "comfygate" and each.levelname == "ERROR"]


def logged(gate: Running) -> list[Any]:
    return [json.loads(line) for line in gate.log.getvalue().splitlines()]


async def until_logged(gate: Running, count: int, path: str) -> list[Any]:
    async with asyncio.timeout(GUARD_S):
        while len(found := [line for line in logged(gate) if path in line.get("route", "")]) < count:
            await asyncio.sleep(0.01)
    return found


async def raw(gate: Running, head: str, body: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = re.fullmatch(r"http://(.*):(\d+)", gate.url).groups()  # type: ignore[union-attr]
    reader, writer = await asyncio.open_connection(host, int(port))
    credential = gate.headers("alice")["Authorization"]
    writer.write(f"{head}\r\nHost: gate\r\nAuthorization: {credential}\r\n\r\n".encode() + body)
    await writer.drain()
    return reader, writer


async def test_a_client_that_reads_the_head_alone_is_no_error(
    world: Standing, caplog: pytest.LogCaptureFixture
) -> None:
    """So the SDK asks for an address to download from."""
    asset = await world.alice.stored(picture() + b"x" * 20_000_000)
    caplog.clear()
    path = f"{ASSETS}/{asset['id']}/content"
    for _ in range(3):
        reader, writer = await raw(world.gate, f"GET {path} HTTP/1.1")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.transport.abort()
    lines = await until_logged(world.gate, 3, "/content")
    assert {line["status"] for line in lines} <= {200, 499}
    assert complaints(caplog) == []
    assert (await world.alice.content(asset["id"])).status == 200


async def test_an_upload_that_breaks_off_stores_nothing(seen: Standing, caplog: pytest.LogCaptureFixture) -> None:
    data = picture() + b"x" * 3_000_000
    body = form(data)
    head = f"POST {ASSETS} HTTP/1.1\r\nContent-Type: {FORM['Content-Type']}\r\nContent-Length: {len(body)}"
    for end in (100, 300_000, len(body) - 1):
        _, writer = await raw(seen.gate, head, body[:end])
        writer.transport.abort()
    await until_logged(seen.gate, 3, ASSETS)
    assert complaints(caplog) == []
    assert seen.files() == []
    assert await seen.alice.has(hash_of(data)) == 404
    assert (await seen.alice.upload(data)).status == 201


async def test_two_uploads_of_the_same_bytes_at_once_are_both_good(world: Standing) -> None:
    data = picture()
    answers = await asyncio.gather(*(world.alice.upload(data, f"{number}.png") for number in range(8)))
    assert {answer.status for answer in answers} <= {200, 201}
    assert {answer.json()["hash"] for answer in answers} == {hash_of(data)}
    for answer in answers:
        assert (await world.alice.content(answer.json()["id"])).body == data
    deleted = [await world.alice.delete(answer.json()["id"]) for answer in answers]
    assert [answer.status for answer in deleted] == [204] * 8
    if world.gate.gate.dependencies.storage.disk is not None:
        assert world.files() == []


async def keyed(client: Client, key: str, data: bytes, **more: Any) -> Any:
    fields = [(name, str(text)) for name, text in more.items()]
    return await client.post(form(data, more=fields), Idempotency_Key=key)


async def test_a_key_is_good_for_one_upload(world: Standing) -> None:
    data, key = picture(), unique("key")
    assert (await keyed(world.alice, key, data, expires_in=1)).code == "invalid_request"
    assert (await keyed(world.alice, key, data, expected_hash=hash_of(b""))).code == "hash_mismatch"
    assert (await keyed(world.alice, key, b"<html>")).code == "forbidden"
    assert (await keyed(world.alice, key, data)).status == 201, "refusals give it back"
    again = await keyed(world.alice, key, picture())
    assert (again.status, again.code) == (422, "idempotency_key_reuse")
    assert (await keyed(world.alice, unique("key"), data)).status == 200, "known bytes, with a key of their own"
    assert (await keyed(world.mallory, key, data)).status == 201, "a neighbour's keys are its own"


async def test_a_key_of_known_bytes_is_used_too(world: Standing) -> None:
    data, key = picture(), unique("key")
    await world.alice.stored(data)
    assert (await keyed(world.alice, key, data)).status == 200
    assert (await keyed(world.alice, key, data)).code == "idempotency_key_reuse"


async def test_a_key_is_of_one_route(world: Standing) -> None:
    key = unique("key")
    assert (await keyed(world.alice, key, picture())).status == 201
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    answer = await world.alice.ask("POST", "/api/v2/jobs", json={"workflow": graph}, headers={"Idempotency-Key": key})
    assert answer.status == 201


async def test_a_key_at_once_is_good_for_one(world: Standing) -> None:
    key = unique("key")
    answers = await asyncio.gather(*(keyed(world.alice, key, picture()) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [201, 422, 422, 422, 422]


def failing(*arguments: Any) -> Operation[None]:
    if arguments:
        raise DatabaseUnavailable("this test's")
    yield Statement("")


async def test_a_file_without_a_record_is_taken_away(seen: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    data, key = picture(), unique("key")
    with monkeypatch.context() as patched:
        patched.setattr(asset_operations, "add_asset", failing)
        answer = await keyed(seen.alice, key, data)
    assert answer.status == 503
    assert seen.files() == []
    assert (await keyed(seen.alice, key, data)).code == "idempotency_key_reuse", "nobody said that it came to nothing"
    assert (await seen.alice.upload(data)).status == 201


async def test_too_many_records_leave_no_file(seen: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asset_operations, "MAX_RECORDS", 1)
    kept = await seen.alice.stored(picture())
    key = unique("key")
    for answer in (await keyed(seen.alice, key, picture()), await seen.alice.from_hash(kept["hash"], tags=["x"])):
        assert (answer.status, answer.code) == (507, "storage_full")
    assert len(seen.files()) == 1
    assert (await seen.alice.delete(kept["id"])).status == 204
    assert (await keyed(seen.alice, key, picture())).status == 201


def new_folder(folder: Path) -> Path:
    made = folder / unique("gate")
    made.mkdir()
    return made


@pytest.mark.parametrize(
    ("status", "told", "code"),
    [(413, 413, "payload_too_large"), (500, 502, "upstream_error"), (200, 502, "upstream_error")],
)
async def test_what_comfyui_does_not_take_has_no_record(tmp_path: Path, status: int, told: int, code: str) -> None:
    """Whether it reads the body first or not."""
    for is_read in (True, False):

        async def answer(request: web.BaseRequest, is_read: bool = is_read) -> web.StreamResponse:
            if is_read:
                await request.read()
            return web.Response(status=status, text="{}", content_type="application/json")

        async with comfy_like(answer) as url, running_gate(new_folder(tmp_path), url) as gate:
            alice = Client(gate, "alice")
            data = picture() + b"x" * 200_000
            found = await keyed(alice, "key", data)
            assert (found.status, found.code) == (told, code)
            assert await alice.has(hash_of(data)) == 404
            assert (await keyed(alice, "key", data)).code == code, "a refusal gives the key back"


async def test_a_comfyui_that_does_not_wait_for_the_end_is_told(tmp_path: Path) -> None:
    """It answers while the file still comes: more than the connection takes without somebody who reads."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=413, headers={"Connection": "close"})

    async with comfy_like(answer) as url, running_gate(tmp_path, url) as gate:
        found = await Client(gate, "alice").upload(picture() + b"x" * 60_000_000)
        assert (found.status, found.code) == (413, "payload_too_large")


async def test_a_comfyui_that_fails_is_no_missing_file(tmp_path: Path) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if request.method == "POST":
            folder = re.search(rb'name="subfolder"\r\n\r\n(.*)\r\n', body)
            assert folder is not None
            return web.json_response({"name": "photo.png", "subfolder": folder[1].decode(), "type": "input"})
        return web.Response(status=500)

    async with comfy_like(answer, client_max_size=10**9) as url, running_gate(tmp_path, url) as gate:
        alice = Client(gate, "alice")
        asset = await alice.stored(picture())
        assert await alice.has(asset["hash"]) == 503
        found = await alice.content(asset["id"])
        assert (found.status, found.code) == (503, "upstream_error")


async def test_a_comfyui_that_breaks_off_is_told(tmp_path: Path) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with comfy_like(answer, client_max_size=10**9) as url, running_gate(tmp_path, url) as gate:
        alice = Client(gate, "alice")
        found = await keyed(alice, "key", picture())
        assert (found.status, found.code) == (503, "upstream_error")
        assert (await keyed(alice, "key", picture())).code == "idempotency_key_reuse", "it may have been stored"


async def test_a_comfyui_that_is_away_takes_no_key(tmp_path: Path) -> None:
    async with standing(tmp_path, is_seen=True) as world:
        asset = await world.alice.stored(picture())
        assert world.comfy is not None
        port = world.comfy.port
        await world.comfy.stop()
        data = picture()
        answer = await keyed(world.alice, "key", data)
        assert (answer.status, answer.code) == (503, "upstream_error")
        assert answer.headers["Retry-After"]
        assert (await world.alice.get(asset["id"])).status == 200
        assert (await world.alice.content(asset["id"])).status == 200, "from the disk"
        assert await world.alice.has(asset["hash"]) == 200
        await world.comfy.start(port=port)
        assert (await keyed(world.alice, "key", data)).status == 201


async def test_what_is_unseen_is_not_claimed_while_comfyui_is_away(tmp_path: Path) -> None:
    async with standing(tmp_path, is_seen=False) as world:
        asset = await world.alice.stored(picture())
        assert world.comfy is not None
        await world.comfy.stop()
        assert (await world.alice.get(asset["id"])).status == 200
        assert await world.alice.has(asset["hash"]) == 503
        answer = await world.alice.content(asset["id"])
        assert (answer.status, answer.code) == (503, "upstream_error")
