"""With `upstream.directory` set: pictures from disk, own lists, quota, retention, shared inputs; each tenant's alone, and no link is followed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from policy.principal import TenantId
from proxy.files.comfyui_folders import ComfyUIFolders
from proxy.files.directories import Directories
from tests.contract.driver import images_of, loading, previewing, saving
from tests.matrix.guard import files_outside, nothing_else_changes
from tests.matrix.people import BLUE, COLORS, GREEN, NUMBERS, RED, is_color, picture_in, png, seen, told
from tests.matrix.world import World, open_world
from tests.policy.media.files import own

SHARED = 'shared_inputs = ["example.png", "shared/"]\n'
LIMITS = 'requests = "100000/minute"\nprompts = "100000/minute"\nuploads = "100000/minute"\n'


@dataclass
class Seen:
    """A world whose gate sees ComfyUI's folders."""

    world: World
    base: Path

    def own(self, kind: str, who: str = "alice") -> Path:
        return self.base / kind / "tenants" / who

    def asked(self, path: str = "/view") -> int:
        """How often ComfyUI was asked."""
        return sum(each.raw_path.startswith(path) for each in self.world.standin.received)


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Seen]:
    base = tmp_path / "comfyui"
    async with open_world(tmp_path, upstream_more=f'directory = "{base}"\n{SHARED}') as world:
        yield Seen(world, base)


def limit_mallory(world: World, *lines: str) -> None:
    """Gives mallory limits of her own."""
    file = world.running.config_file
    text = file.read_text().replace("[tenants.mallory]", '[tenants.mallory]\nlimits = "hers"')
    file.write_text(f"{text}\n[limits.hers]\n{LIMITS}" + "\n".join(lines) + "\n")


async def test_a_picture_comes_from_disk_with_range_and_validators(disk: Seen) -> None:
    alice, mallory = disk.world.alice, disk.world.mallory
    item = images_of(await alice.run(saving("shot", NUMBERS["alice"])))[0]
    path = f"/view?filename={item['filename']}&subfolder={item['subfolder']}&type=output"
    whole = await alice.get(path)
    assert (whole.status, disk.asked()) == (200, 0)
    assert whole.body == own((disk.own("output") / item["filename"]).read_bytes())
    assert whole.headers["Content-Type"] == "image/png"
    assert "private" in whole.headers["Cache-Control"]
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    part = await alice.get(path, headers={"Range": "bytes=8-15"})
    assert (part.status, part.body) == (206, whole.body[8:16])
    assert part.headers["Content-Range"] == f"bytes 8-15/{len(whole.body)}"
    assert (await alice.get(path, headers={"Range": "bytes=99999999-"})).status == 416
    assert (await alice.get(path, headers={"If-None-Match": whole.headers["ETag"]})).status == 304
    assert (await alice.get(path, headers={"If-Modified-Since": whole.headers["Last-Modified"]})).status == 200
    head = await alice.call("HEAD", path)
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(whole.body)))
    for headers in ({}, {"Range": "bytes=8-15"}, {"If-None-Match": whole.headers["ETag"]}, {"If-None-Match": "*"}):
        foreign = seen(await mallory.get(path, headers=headers))
        absent = seen(await mallory.get(path.replace("shot", "none"), headers=headers))
        assert foreign == absent
        assert foreign[0] == 404


async def test_temp_files_come_from_disk_for_who_made_them(disk: Seen) -> None:
    item = images_of(await disk.world.alice.run(previewing(NUMBERS["alice"])))[0]
    assert (await disk.world.alice.file(item)).status == 200
    assert disk.asked() == 0
    assert (await disk.world.mallory.file(item)).status == 404


async def test_what_is_no_plain_picture_is_left_to_comfyui(disk: Seen) -> None:
    """It defuses what a browser would run, and makes previews and channels."""
    alice = disk.world.alice
    await alice.photo("photo.png")
    for name, content in (
        ("page.html", b"<script>"),
        ("drawing.svg", b"<svg/>"),
        ("note.txt", b"text"),
        ("none", b"x"),
    ):
        (disk.own("input") / name).write_bytes(content)
    (disk.own("input") / "folder.png").mkdir()
    queries = [
        "photo.png&preview=webp",
        "photo.png&channel=a",
        "page.html",
        "drawing.svg",
        "note.txt",
        "none",
        "folder.png",
    ]
    for count, query in enumerate(queries, start=1):
        answer = await alice.get(f"/view?type=input&filename={query}")
        assert disk.asked() == count, f"{query}: {told(answer)}"
        assert "html" not in answer.headers.get("Content-Type", "")


async def test_no_link_in_a_tenants_folder_is_followed(disk: Seen) -> None:
    """Whoever planted it: the gate itself reads no file through it, lists none and deletes none."""
    alice, mallory = disk.world.alice, disk.world.mallory
    await alice.photo("secret.png")
    await mallory.photo("own.png")
    mine, hers = disk.own("input", "mallory"), disk.own("input")
    (mine / "link.png").symlink_to(hers / "secret.png")
    (mine / "folder").symlink_to(hers, target_is_directory=True)
    os.symlink(disk.base / "input", mine / "root")
    store = ComfyUIFolders(Directories(disk.base))
    for name in ("link.png", "folder/secret.png", "root/tenants/alice/secret.png"):
        folder, _, file = name.rpartition("/")
        before = disk.asked()
        await mallory.session.get(f"{mallory.url}/view?type=input&filename={file}&subfolder={folder}")
        assert disk.asked() == before + 1, f"{name} is not served by the gate"
    listed = (await mallory.get("/internal/files/input")).json()
    assert "own.png [input]" in listed
    assert not [name for name in listed if "secret" in name]
    options = (await mallory.get("/object_info/LoadImage")).json()["LoadImage"]["input"]["required"]["image"]
    assert "secret.png" not in str(options)
    used = await store.usage_bytes(TenantId("mallory"))
    assert used == (mine / "own.png").stat().st_size, "what a link leads to is not counted"
    await store.delete_older(TenantId("mallory"), -60.0)
    assert (hers / "secret.png").exists()
    assert not (mine / "own.png").exists()


async def test_lists_hold_ones_own_files_and_the_shared_ones(disk: Seen) -> None:
    (disk.base / "input" / "example.png").write_bytes(png(BLUE))
    (disk.base / "input" / "operators.png").write_bytes(png(BLUE))
    for tenant in (disk.world.alice, disk.world.mallory):
        await tenant.photo(f"of-{tenant.who}.png")
        await tenant.photo(f"deep-{tenant.who}.png", subfolder="deep")
        await tenant.run(saving(f"out-{tenant.who}", NUMBERS[tenant.who]))
    for tenant in (disk.world.alice, disk.world.mallory):
        who = tenant.who
        files = (await tenant.get("/internal/files/input")).json()
        assert files == [f"of-{who}.png [input]", "example.png [input]"]
        assert (await tenant.get("/internal/files/output")).json() == [f"out-{who}_00001_.png [output]"]
        for path in ("/object_info/LoadImage", "/api/object_info"):
            entry = (await tenant.get(path)).json()["LoadImage"]["input"]["required"]["image"]
            assert entry[0] == ["example.png", f"of-{who}.png"], path
            assert "operators" not in str(entry)


async def test_shared_inputs_are_for_all_to_read_and_for_none_to_write(disk: Seen) -> None:
    shared = disk.base / "input" / "shared"
    shared.mkdir()
    for path in (disk.base / "input" / "example.png", shared / "logo.png"):
        path.write_bytes(png(BLUE))
    for tenant in (disk.world.alice, disk.world.mallory):
        tenant.foreign_colors = ()
        for name, subfolder in (("example.png", ""), ("logo.png", "shared")):
            picture = picture_in((await tenant.view(name, type="input", subfolder=subfolder)).body)
            assert picture is not None
            assert is_color(picture, BLUE)
            entry = await tenant.run(loading(f"{subfolder}/{name}".strip("/")))
            assert entry["status"]["completed"]
        with nothing_else_changes(disk.base, tenant.who):
            for name, fields in (
                ("example.png", {}),
                ("logo.png", {"subfolder": "shared"}),
                ("new.png", {"subfolder": "shared"}),
            ):
                answer = await tenant.upload(name, png(GREEN), overwrite="true", **fields)
                assert answer.status == 400, told(answer)
            answer = await tenant.upload("example.png", png(GREEN), overwrite="true", type="output")
            assert answer.json()["type"] == "output", "another folder has the name free"
        for name in ("tenants/alice", "shared/../tenants/alice"):
            assert (await tenant.view("secret.png", type="input", subfolder=name)).status in (400, 404)


async def test_a_full_storage_takes_nothing_more(disk: Seen) -> None:
    """507, of the tenant alone; uploads, saved workflows and jobs alike."""
    world, picture = disk.world, os.urandom(3000)
    limit_mallory(world, 'storage = "16KiB"')
    assert await world.running.gate.reload(world.running.config_file)
    body = png(GREEN) + picture
    for number in range(5):
        assert (await world.mallory.upload(f"{number}.png", body)).status == 200
    over = await world.mallory.upload("over.png", body)
    assert over.status == 507, told(over)
    assert over.json()["error"]["type"] == "storage_full"
    assert not (disk.own("input", "mallory") / "over.png").exists(), "what was begun is not kept"
    assert (await world.mallory.post("/userdata/large.json", data=b"x" * 4000)).status == 507
    assert (await world.alice.upload("alices.png", png(RED))).status == 200
    assert "16384" in over.text(), "one's own quota"
    await world.mallory.post("/userdata/small.json", data=b"x" * 700)
    for _ in range(3):
        await world.mallory.upload("more.png", png(GREEN))
    while (answer := await world.mallory.post("/userdata/rest.json", data=b"x" * 300)).status == 200:
        pass
    assert answer.status == 507


async def test_retention_deletes_what_is_old_and_ones_own(disk: Seen) -> None:
    world = disk.world
    for tenant in (world.alice, world.mallory):
        await tenant.photo("old.png", subfolder="deep")
        await tenant.photo("new.png")
        await tenant.post("/userdata/kept.json", data=b"{}")
        await tenant.run(saving("old", NUMBERS[tenant.who]))
        for path in (
            disk.own("input", tenant.who) / "deep" / "old.png",
            disk.own("output", tenant.who) / "old_00001_.png",
            disk.base / "user" / "default" / "tenants" / tenant.who / "kept.json",
        ):
            os.utime(path, (1, 1))
    for name in ("operators.png", "example.png"):
        (disk.base / "input" / name).write_bytes(png(BLUE))
        os.utime(disk.base / "input" / name, (1, 1))
    limit_mallory(world, 'retention = "1d"')
    assert await world.running.gate.reload(world.running.config_file)
    before = files_outside(disk.base, "mallory")
    await world.running.gate.dependencies.storage.sweep()
    assert files_outside(disk.base, "mallory") == before
    mine = sorted(path.name for path in disk.base.rglob("tenants/mallory/**/*") if path.is_file())
    assert mine == ["kept.json", "new.png"]
    assert not (disk.own("input", "mallory") / "deep").exists(), "an empty folder goes too"
    assert disk.own("input", "mallory").exists()
    picture = picture_in((await world.alice.view("old_00001_.png")).body)
    assert picture is not None
    assert is_color(picture, COLORS["alice"])
    assert (await world.mallory.view("old_00001_.png")).status == 404
