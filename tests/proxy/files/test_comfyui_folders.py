"""ComfyUI's folders: only plain files of the tenant's own are found, counted and deleted, and no link is followed."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.principal import TenantId
from proxy.files import comfyui_folders as disk_module
from proxy.files.comfyui_folders import ComfyUIFolders, content_type_of, serve_file
from proxy.files.directories import Directories
from proxy.jobs.temp_files import Left

ALICE, BOB = TenantId("alice"), TenantId("bob")
DAY_S = 86400.0


def put(file: Path, size: int = 10, *, is_old: bool = False) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    if is_old:
        os.utime(file, (1, 1))
    return file


def own(base: Path, folder: str, tenant: str = "alice") -> Path:
    return base / folder / "tenants" / tenant


@pytest.fixture
def base(tmp_path: Path) -> Path:
    put(own(tmp_path, "input") / "photo.png")
    put(own(tmp_path, "input", "bob") / "secret.png")
    return tmp_path


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.webp", "a.gif", "a.mp4", "a.mp3", "a.flac", "sub/a.png"])
async def test_plain_media_are_found(tmp_path: Path, name: str) -> None:
    file = put(tmp_path / "output" / "tenants" / "alice" / name)
    assert (
        await ComfyUIFolders(Directories(tmp_path)).find(Folder.OUTPUT, UpstreamPath(f"tenants/alice/{name}")) == file
    )


async def test_a_file_is_looked_for_where_it_was_when_it_was_asked_for(tmp_path: Path) -> None:
    """A moment later the name may lead to a neighbour's at another ComfyUI: threads are not always free."""
    makers, path = ["", "gpu-2"], UpstreamPath("preview.png")
    file = put(tmp_path / "one" / "temp" / path)
    put(tmp_path / "two" / "temp" / path)
    seen = Directories(tmp_path / "one", {"gpu-2": tmp_path / "two"}, maker_of=lambda folder, path: makers[0])
    is_free = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        threads.submit(is_free.wait)
        finding = asyncio.ensure_future(ComfyUIFolders(seen).find(Folder.TEMP, path))
        await asyncio.sleep(0)
        makers.pop(0)
        is_free.set()
        assert await finding == file


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.txt", "a.js", "a.json", "a", "a.png.html", "a.pdf", ".png"])
async def test_what_a_browser_may_run_is_left_to_comfyui(tmp_path: Path, name: str) -> None:
    put(tmp_path / "output" / name)
    assert await ComfyUIFolders(Directories(tmp_path)).find(Folder.OUTPUT, UpstreamPath(name)) is None


async def test_what_is_no_regular_file_is_not_found(base: Path) -> None:
    mine = own(base, "input")
    (mine / "folder.png").mkdir()
    os.mkfifo(mine / "pipe.png")
    (mine / "link.png").symlink_to(own(base, "input", "bob") / "secret.png")
    (mine / "same.png").symlink_to(mine / "photo.png")
    (mine / "deep").symlink_to(own(base, "input", "bob"), target_is_directory=True)
    (mine / "dangling.png").symlink_to(mine / "nothing.png")
    disk = ComfyUIFolders(Directories(base))
    assert await disk.find(Folder.INPUT, UpstreamPath("tenants/alice/photo.png"))
    for name in ("folder.png", "pipe.png", "link.png", "same.png", "deep/secret.png", "dangling.png", "none.png",
                 "photo.png/x.png", "nul\0.png", f"{'x' * 300}.png"):  # fmt: skip
        assert await disk.find(Folder.INPUT, UpstreamPath(f"tenants/alice/{name}")) is None, name
    assert await disk.find(Folder.TEMP, UpstreamPath("tenants/alice/photo.png")) is None


async def test_usage_counts_files_and_no_links(base: Path) -> None:
    put(own(base, "input") / "deep" / "b.bin", 100)
    put(own(base, "output") / "c.png", 1000)
    put(own(base, "user/default") / "workflows" / "w.json", 10_000)
    (own(base, "input") / "link.png").symlink_to(own(base, "input", "bob") / "secret.png")
    (own(base, "input") / "folder").symlink_to(own(base, "input", "bob"), target_is_directory=True)
    disk = ComfyUIFolders(Directories(base))
    assert await disk.usage_bytes(ALICE) == 11_110
    assert await disk.usage_bytes(BOB) == 10
    assert await disk.usage_bytes(TenantId("carol")) == 0


async def test_what_is_stored_is_added_without_counting_anew(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = ComfyUIFolders(Directories(base))
    disk.add(ALICE, 500)
    assert await disk.usage_bytes(ALICE) == 10, "before the first count there is nothing to keep true"
    disk.add(ALICE, 500)
    put(own(base, "input") / "b.png", 70)
    assert await disk.usage_bytes(ALICE) == 510
    monkeypatch.setattr(disk_module, "_USAGE_FRESH_S", -1.0)
    assert await disk.usage_bytes(ALICE) == 80


async def test_retention_deletes_old_files_of_that_tenant_alone(base: Path) -> None:
    mine, made = own(base, "input"), own(base, "output")
    gone = [put(mine / "old.png", is_old=True), put(made / "a" / "b" / "old.png", is_old=True)]
    kept = [
        put(made / "c" / "new.png"),
        put(own(base, "user/default") / "old.json", is_old=True),
        put(own(base, "input", "bob") / "old.png", is_old=True),
        put(base / "input" / "operators.png", is_old=True),
        put(base / "outside" / "old.png", is_old=True),
    ]
    (mine / "link").symlink_to(base / "outside", target_is_directory=True)
    (mine / "empty" / "deeper").mkdir(parents=True)
    disk = ComfyUIFolders(Directories(base))
    before = await disk.usage_bytes(ALICE)
    assert await disk.delete_older(ALICE, DAY_S) == 2
    assert [file.exists() for file in gone] == [False, False]
    assert [file.exists() for file in kept] == [True] * len(kept)
    assert sorted(path.name for path in mine.iterdir()) == ["link", "photo.png"]
    assert sorted(path.name for path in made.iterdir()) == ["c"]
    assert await disk.usage_bytes(ALICE) == before - 20, "counted anew"


async def test_retention_never_removes_the_root(base: Path) -> None:
    os.utime(own(base, "input") / "photo.png", (1, 1))
    assert await ComfyUIFolders(Directories(base)).delete_older(ALICE, DAY_S) == 1
    assert list(own(base, "input").iterdir()) == []
    assert await ComfyUIFolders(Directories(base)).delete_older(TenantId("carol"), DAY_S) == 0
    assert not own(base, "input", "carol").exists()


async def test_temp_files_are_deleted_by_name(base: Path) -> None:
    file, other = put(base / "temp" / "a.png"), put(base / "temp" / "b.png")
    (base / "temp" / "link").symlink_to(base / "input", target_is_directory=True)
    await ComfyUIFolders(Directories(base)).delete_temp(
        [(name, Left(math.inf, "")) for name in ("a.png", "none.png", "link/tenants/alice/photo.png")]
    )
    assert not file.exists()
    assert other.exists()
    assert (own(base, "input") / "photo.png").exists()


async def test_a_temp_file_that_was_written_anew_is_not_deleted(base: Path) -> None:
    old, new = put(base / "temp" / "old.png"), put(base / "temp" / "new.png")
    os.utime(old, (100.0, 100.0))
    os.utime(new, (101.0, 101.0))
    await ComfyUIFolders(Directories(base)).delete_temp([(name, Left(100.0, "")) for name in ("old.png", "new.png")])
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a b.png", 'filename="a b.png"'),
        ("é.png", "filename*=UTF-8''%C3%A9.png"),
        ('a"b.png', "filename*=UTF-8''a%22b.png"),
        ("a;b.png", "filename*=UTF-8''a%3Bb.png"),
    ],
)
def test_a_file_is_headed_so_that_nothing_runs(tmp_path: Path, name: str, expected: str) -> None:
    headers = serve_file(tmp_path / name, cache_control="private").headers
    assert headers["Content-Disposition"] == expected
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("private", "nosniff")
    assert "sandbox" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.WEBP", "image/webp"), ("a.flac", "audio/flac"), ("a.mkv", "video/x-matroska"), ("a.opus", "audio/ogg")],
)
def test_types_are_comfyuis_whatever_the_machine_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.setattr("mimetypes.guess_type", lambda *_, **__: (None, None))
    headers = serve_file(tmp_path / name, cache_control="private").headers
    assert headers["Content-Type"] == content_type_of(name) == expected


@pytest.mark.parametrize("name", ["a.svg", "a.html", "a.png.gz", "a", "a.xml", ".png", "a.pdf"])
def test_what_a_browser_might_run_is_left_to_comfyui(name: str) -> None:
    assert content_type_of(name) is None
