"""Two tenants: what one has is for the other as what nobody has."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.driver import png
from tests.proxy.v2.assets.sdk import ASSETS, Answer, Client, Standing, hash_of, picture

NOBODYS = "00000000-0000-4000-8000-000000000000"
ID = {"X-Request-Id": "walls"}
CANARY = "zq7canary"


def told(answer: Answer) -> tuple[int, bytes, list[tuple[str, str]]]:
    left_out = ("Date", "RateLimit", "RateLimit-Policy")
    return (
        answer.status,
        answer.body,
        sorted((key, text) for key, text in answer.headers.items() if key not in left_out),
    )


async def asked_of(client: Client, asset_id: str, digest: str) -> list[Answer]:
    """Everything that names an asset or its bytes."""
    reference = {"__type": "core/ASSET", "info": {"id": asset_id, "hash": digest, "file_path": "x.png"}}
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": reference}}}
    return [
        await client.ask("GET", f"{ASSETS}/{asset_id}", headers=ID),
        await client.ask("HEAD", f"{ASSETS}/{asset_id}", headers=ID),
        await client.ask("GET", f"{ASSETS}/{asset_id}/content", headers=ID),
        await client.ask("HEAD", f"{ASSETS}/{asset_id}/content", headers=ID),
        await client.ask("GET", f"{ASSETS}/{asset_id}/content", headers=ID | {"Range": "bytes=0-3"}),
        await client.ask("DELETE", f"{ASSETS}/{asset_id}", headers=ID),
        await client.ask("HEAD", f"{ASSETS}/by-hash/{digest}", headers=ID),
        await client.ask("GET", f"{ASSETS}/by-hash/{digest}", headers=ID),
        await client.ask("POST", f"{ASSETS}/from-hash", json={"hash": digest}, headers=ID),
        await client.ask("POST", "/api/v2/jobs", json={"workflow": graph}, headers=ID),
    ]


async def test_a_neighbours_asset_answers_as_none(world: Standing) -> None:
    data = picture() + CANARY.encode()
    asset = await world.alice.stored(data, f"{CANARY}.png", tags=CANARY)
    foreign = await asked_of(world.mallory, asset["id"], asset["hash"])
    nothing = await asked_of(world.mallory, NOBODYS, hash_of(b"nobody's"))
    for one, other in zip(foreign, nothing, strict=True):
        status, body, head = told(one)
        assert (status, body.replace(asset["id"].encode(), NOBODYS.encode()), head) == told(other)
        assert one.status in (404, 422)
        assert CANARY.encode() not in body
    assert (await world.alice.content(asset["id"])).body == data, "nothing of hers has changed"


async def test_a_neighbours_bytes_are_stored_anew(world: Standing) -> None:
    """As if nobody had them; and each has its own file, which ends by itself."""
    data = picture()
    hers = await world.alice.stored(data)
    his = await world.mallory.upload(data)
    assert (his.status, his.json()["created_new"]) == (201, True)
    assert his.json()["id"] != hers["id"]
    if world.directory is not None:
        assert len(world.files("alice")) == len(world.files("mallory")) == 1
    assert (await world.alice.delete(hers["id"])).status == 204
    assert (await world.mallory.content(his.json()["id"])).body == data


async def test_a_path_does_not_lead_to_a_neighbours(seen: Standing) -> None:
    """Whatever is said of the place, the file lies in the caller's own folder of assets."""
    for path in ("tenants/alice/x.png", "input/tenants/alice/x.png", "api-v2/x.png"):
        assert (await seen.mallory.upload(picture(), path)).status == 201
    assert seen.files("alice") == []
    assert {file.relative_to(seen.files("mallory")[0].parents[1]).parts[1] for file in seen.files("mallory")} == {
        "x.png"
    }


@pytest.mark.parametrize("who", ["admin", None])
async def test_assets_are_of_tenants(seen: Standing, who: str | None) -> None:
    asset = await seen.alice.stored(picture())
    async with seen.gate.call("GET", f"{ASSETS}/{asset['id']}", who) as response:
        assert response.status == (401 if who is None else 403)
        assert (await response.json())["error"]["code"] == ("unauthorized" if who is None else "forbidden")


async def test_a_hash_of_many_files_is_one_answer(seen: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were overwritten or are gone are passed over, and no record of theirs hides a good one."""
    data = picture()
    ids = []
    for _ in range(4):
        asset = await seen.alice.stored(data)
        ids.append(asset["id"])
        [file] = [file for file in seen.files() if file.parent.name == asset["id"]]
        file.write_bytes(png() if len(ids) % 2 else data)  # another time of change, in any case
    assert await seen.alice.has(hash_of(data)) == 404
    good = await seen.alice.stored(data)
    found: Any = (await seen.alice.ask("GET", f"{ASSETS}/by-hash/{hash_of(data)}")).json()
    assert found["id"] == good["id"]
