"""A.3 and C.8: users, settings and userdata, in single-user mode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from .driver import Answer, Comfy, unique


@pytest.fixture
async def folder(comfy: Comfy) -> AsyncIterator[str]:
    """A folder of our own in the shared userdata; its files go away again."""
    name = unique("u")
    yield name
    listed = await comfy.get(f"/v2/userdata?path={name}")
    if listed.status == 200:
        for entry in listed.json():
            if entry["type"] == "file":
                await comfy.call("DELETE", f"/userdata/{quote(entry['path'], safe='')}")


async def _write(comfy: Comfy, path: str, data: bytes = b"{}", query: str = "") -> Answer:
    return await comfy.post(f"/userdata/{quote(path, safe='')}{query}", data=data)


async def _read(comfy: Comfy, path: str) -> Answer:
    return await comfy.get(f"/userdata/{quote(path, safe='')}")


async def test_an_empty_file_is_kept(comfy: Comfy, folder: str) -> None:
    assert (await _write(comfy, f"{folder}/empty.json", b"")).status == 200
    answer = await _read(comfy, f"{folder}/empty.json")
    assert (answer.status, answer.body) == (200, b"")


async def test_written_file_is_read_back_as_a_download(comfy: Comfy, folder: str) -> None:
    path = f"{folder}/w.json"
    answer = await _write(comfy, path, b'{"a": 1}')
    assert (answer.status, answer.json()) == (200, path)
    back = await _read(comfy, path)
    assert (back.status, back.body) == (200, b'{"a": 1}')
    if comfy.is_current:
        assert back.headers["Content-Disposition"] == "attachment"
        assert back.headers["X-Content-Type-Options"] == "nosniff"
    assert back.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.js"])
async def test_active_types_are_not_named(comfy: Comfy, folder: str, name: str) -> None:
    if not comfy.is_current:
        pytest.skip("0.3.64 serves them as they are")
    await _write(comfy, f"{folder}/{name}", b"<x/>")
    assert (await _read(comfy, f"{folder}/{name}")).headers["Content-Type"] == "application/octet-stream"


async def test_name_is_decoded_twice(comfy: Comfy, folder: str) -> None:
    assert (await comfy.post(f"/userdata/{folder}%252Fw.json", data=b"{}")).json() == f"{folder}/w.json"
    assert (await comfy.get(f"/userdata/{folder}%2Fw.json")).status == 200
    thrice = (await comfy.post(f"/userdata/{folder}%2Fx%2525y.json", data=b"{}")).json()
    assert thrice == f"{folder}/x%y.json"


@pytest.mark.parametrize("path", ["..%2Fx", "%252e%252e%252Fx", "%2Ftmp%2Fx", "a%2F..%2F..%2Fx"])
async def test_name_outside_is_403(comfy: Comfy, path: str) -> None:
    for method in ("POST", "GET", "DELETE"):
        answer = await comfy.call(method, f"/userdata/{path}")
        assert (answer.status, answer.body) == (403, b"")


async def test_directory_cannot_be_written_read_or_deleted(comfy: Comfy, folder: str) -> None:
    await _write(comfy, f"{folder}/d/w.json")
    answer = await _write(comfy, f"{folder}/d")
    assert (answer.status, answer.body) == (400, b"")
    assert (await _read(comfy, f"{folder}/d")).status == 403
    assert (await comfy.call("DELETE", f"/userdata/{folder}%2Fd")).status == 500


async def test_file_cannot_be_a_parent(comfy: Comfy, folder: str) -> None:
    await _write(comfy, f"{folder}/w.json")
    answer = await _write(comfy, f"{folder}/w.json/x.json")
    assert (answer.status, answer.body) == (400, b"")


async def test_nul_in_a_name_is_500(comfy: Comfy, folder: str) -> None:
    assert (await comfy.post(f"/userdata/{folder}%2Fa%00b", data=b"")).status == 500


async def test_reading_what_is_missing_creates_its_parents(comfy: Comfy, folder: str) -> None:
    assert (await comfy.get(f"/userdata?dir={folder}")).status == 404
    assert (await _read(comfy, f"{folder}/sub/none.json")).status == 404
    assert (await comfy.get(f"/userdata?dir={folder}%2Fsub")).json() == []


@pytest.mark.parametrize(("query", "status"), [("?overwrite=false", 409), ("?overwrite=False", 200), ("", 200)])
async def test_overwrite_is_refused_for_one_word(comfy: Comfy, folder: str, query: str, status: int) -> None:
    await _write(comfy, f"{folder}/w.json", b"one")
    answer = await _write(comfy, f"{folder}/w.json", b"two", query)
    assert answer.status == status
    if status == 409:
        assert answer.text() == "File already exists"
    assert (await _read(comfy, f"{folder}/w.json")).body == (b"one" if status == 409 else b"two")


async def test_full_info_names_size_and_times(comfy: Comfy, folder: str) -> None:
    info = (await _write(comfy, f"{folder}/w.json", b"12345", "?full_info=true")).json()
    assert (info["path"], info["size"]) == (f"{folder}/w.json", 5)
    assert set(info) == ({"path", "size", "modified", "created"} if comfy.is_current else set(info))
    assert info["modified"] > 1_700_000_000 * (1000 if comfy.is_current else 1)
    assert (await _write(comfy, f"{folder}/w.json", b"", "?full_info=1")).json() == f"{folder}/w.json"


async def test_listings(comfy: Comfy, folder: str) -> None:
    for name in ("a.json", "sub/b.json", ".hidden", "sub/.index.json"):
        await _write(comfy, f"{folder}/{name}")
    base = f"/userdata?dir={folder}"
    assert (await comfy.get(base)).json() == ["a.json"]
    assert sorted((await comfy.get(f"{base}&recurse=true")).json()) == ["a.json", "sub/b.json"]
    split = (await comfy.get(f"{base}&recurse=TRUE&split=true")).json()
    assert sorted(split) == [["a.json", "a.json"], ["sub/b.json", "sub", "b.json"]]
    full = (await comfy.get(f"{base}&recurse=true&split=true&full_info=true")).json()
    assert sorted(each["path"] for each in full) == ["a.json", "sub/b.json"]


async def test_listing_of_nothing(comfy: Comfy) -> None:
    answer = await comfy.get("/userdata?dir=")
    assert (answer.status, answer.text()) == (400, "Directory not provided")
    assert (await comfy.get("/userdata")).status == 400
    answer = await comfy.get(f"/userdata?dir={unique()}")
    assert (answer.status, answer.text()) == (404, "Directory not found")
    answer = await comfy.get("/userdata?dir=..")
    assert (answer.status, answer.text()) == (403, "Invalid directory")


async def test_second_listing_shows_folders_and_hidden_files(comfy: Comfy, folder: str) -> None:
    for name in ("b.json", "sub/A.json", ".hidden"):
        await _write(comfy, f"{folder}/{name}", b"12")
    entries = (await comfy.get(f"/v2/userdata?path={folder}")).json()
    assert entries[0] == {"name": "sub", "path": f"{folder}/sub", "type": "directory"}
    assert [each["name"] for each in entries] == ["sub", ".hidden", "A.json", "b.json"]
    assert set(entries[1]) == {"name", "path", "type", "size", "modified"}
    assert (entries[2]["path"], entries[2]["size"]) == (f"{folder}/sub/A.json", 2)
    everything = (await comfy.get("/v2/userdata")).json()
    assert f"{folder}/b.json" in [each["path"] for each in everything]


async def test_second_listing_refuses_what_is_no_folder(comfy: Comfy, folder: str) -> None:
    await _write(comfy, f"{folder}/b.json")
    answers = {
        f"{folder}%2Fb.json": (400, "Requested path is not a directory"),
        "..": (400, "Invalid path requested"),
        unique(): (404, "Requested path not found"),
    }
    for path, expected in answers.items():
        answer = await comfy.get(f"/v2/userdata?path={path}")
        assert (answer.status, answer.text()) == expected


async def test_delete_removes_a_file(comfy: Comfy, folder: str) -> None:
    await _write(comfy, f"{folder}/w.json")
    answer = await comfy.call("DELETE", f"/userdata/{folder}%2Fw.json")
    assert (answer.status, answer.body) == (204, b"")
    assert (await comfy.call("DELETE", f"/userdata/{folder}%2Fw.json")).status == 404


async def test_move_renames_files_and_directories(comfy: Comfy, folder: str) -> None:
    await _write(comfy, f"{folder}/a.json", b"a")
    answer = await comfy.post(f"/userdata/{folder}%2Fa.json/move/{folder}%2Fsub%2Fb.json")
    assert (answer.status, answer.json()) == (200, f"{folder}/sub/b.json")
    answer = await comfy.post(f"/userdata/{folder}%2Fsub/move/{folder}%2Fother?full_info=true")
    assert answer.json()["path"] == f"{folder}/other"
    assert (await _read(comfy, f"{folder}/other/b.json")).body == b"a"


async def test_move_onto_a_directory_moves_into_it(comfy: Comfy, folder: str) -> None:
    await _write(comfy, f"{folder}/a.json", b"a")
    await _write(comfy, f"{folder}/d/x.json", b"x")
    assert (await comfy.post(f"/userdata/{folder}%2Fa.json/move/{folder}%2Fd")).json() == f"{folder}/d"
    assert (await _read(comfy, f"{folder}/d/a.json")).body == b"a"


async def test_move_is_refused(comfy: Comfy, folder: str) -> None:
    for name in ("a.json", "b.json"):
        await _write(comfy, f"{folder}/{name}")
    base = f"/userdata/{folder}%2Fa.json/move"
    assert (await comfy.post(f"{base}/{folder}%2Fb.json?overwrite=false")).status == 409
    assert (await comfy.post(f"{base}/..%2Fx")).status == (403 if comfy.is_current else 500)
    assert (await comfy.post(f"/userdata/..%2Fx/move/{folder}%2Fb.json")).status == 403
    assert (await comfy.post(f"/userdata/{folder}%2Fnone/move/{folder}%2Fb.json")).status == 404


async def test_user_css_is_inline(local: Comfy) -> None:
    await _write(local, "user.css", b"b{}")
    answer = await _read(local, "user.css")
    assert (answer.headers["Content-Type"], answer.headers["Content-Disposition"]) == ("text/css", "inline")
    assert answer.headers["Cache-Control"] == "no-store"


async def test_settings_are_stored_and_read(comfy: Comfy) -> None:
    name, other = unique("Comfy.Test"), unique("Comfy.Other")
    assert (await comfy.get(f"/settings/{name}")).json() is None
    plain = {"Content-Type": "text/plain"}
    answer = await comfy.post(f"/settings/{name}", data=b'"dark"', headers=plain)
    assert (answer.status, answer.body) == (200, b"")
    assert (await comfy.post("/settings", json={other: [1]})).status == 200
    settings = (await comfy.get("/settings")).json()
    assert (settings[name], settings[other]) == ("dark", [1])
    assert (await comfy.get(f"/api/settings/{name}")).json() == "dark"
    for text in (b"no json", b""):
        assert (await comfy.post(f"/settings/{name}", data=text)).status == 500
    assert (await comfy.get(f"/settings/{name}")).json() == "dark"


async def test_a_settings_name_may_hold_a_slash(comfy: Comfy) -> None:
    name = unique("Comfy.Test/of")
    assert (await comfy.post(f"/settings/{quote(name, safe='')}", json=5)).status == 200
    assert (await comfy.get(f"/settings/{quote(name, safe='')}")).json() == 5
    assert (await comfy.get("/settings")).json()[name] == 5


async def test_settings_file_can_be_replaced_through_userdata(local: Comfy) -> None:
    await local.post("/settings/a", json=1)
    assert (await _read(local, "comfy.settings.json")).json() == {"a": 1}
    await _write(local, "comfy.settings.json", b'{"b": 2}')
    assert (await local.get("/settings")).json() == {"b": 2}
    await _write(local, "comfy.settings.json", b"nonsense")
    assert (await local.get("/settings")).json() == {}


async def test_users_of_a_single_user_server(comfy: Comfy) -> None:
    await comfy.get("/settings")
    for headers in ({}, {"Comfy-User": "somebody"}):
        assert (await comfy.get("/users", headers=headers)).json() == {"storage": "server", "migrated": True}
    assert (await comfy.get("/settings", headers={"Comfy-User": "somebody"})).status == 200


async def test_users_can_be_made_in_single_mode_too(local: Comfy) -> None:
    user_id = (await local.post("/users", json={"username": "Ann B"})).json()
    assert user_id.startswith("Ann-B_")
    for name, message in (
        ("Ann B", "Duplicate username."),
        (" ", "username not provided"),
        ("__x", "System User prefix not allowed"),
    ):
        answer = await local.post("/users", json={"username": name})
        assert (answer.status, answer.json()) == (400, {"error": message})
    assert (await local.post("/users", json={})).status == 500


async def test_users_of_a_fresh_server_are_not_migrated(local: Comfy) -> None:
    assert (await local.get("/users")).json()["migrated"] is False
    assert (await local.get("/v2/userdata")).json() == []
