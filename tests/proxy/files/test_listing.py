"""Listings of a tenant's own files: newest first, in its own names, bounded, and unknown where the folders are not seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policy.principal import TenantId
from proxy.files import listing as files_module
from proxy.files.directories import Directories
from proxy.files.listing import FileListing

ALICE = TenantId("alice")


def put(base: Path, name: str, at_s: int) -> None:
    file = base / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.utime(file, (at_s, at_s))


async def test_unknown_where_the_folders_are_not_seen() -> None:
    listing = await FileListing(Directories(None)).listing(ALICE)
    assert (listing.input, listing.output) == ((), ())


async def test_newest_first_in_the_tenants_names(tmp_path: Path) -> None:
    for at_s, name in enumerate(
        ["input/tenants/alice/a.png", "input/tenants/alice/sub/b.png", "output/tenants/alice/c.png",
         "input/tenants/bob/secret.png", "input/operators.png", "input/tenants/alice/.hidden",
         "input/tenants/alice/.git/config", "input/tenants/alice/16:9\uff1f.png", "input/tenants/alice/~=con", "input/tenants/alice/d.png"],
        start=10,
    ):  # fmt: skip
        put(tmp_path, name, at_s)
    (tmp_path / "input/tenants/alice/link").symlink_to(tmp_path / "input/tenants/bob", target_is_directory=True)
    listing = await FileListing(Directories(tmp_path)).listing(ALICE)
    assert (listing.input, listing.output) == (
        ("d.png", "con", "16:9\uff1f.png", "sub/b.png", "a.png"),
        ("c.png",),
    )


async def test_a_tenant_without_files(tmp_path: Path) -> None:
    listing = await FileListing(Directories(tmp_path)).listing(ALICE)
    assert listing.input == ()


@pytest.mark.parametrize("names", [[f"{number}.png" for number in range(9)], [f"{n}/a.png" for n in range(9)]])
async def test_a_listing_is_bounded(tmp_path: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAX_LISTED", 4)
    for name in names:
        put(tmp_path, f"input/tenants/alice/{name}", 10)
    assert len((await FileListing(Directories(tmp_path)).listing(ALICE)).input) == 4


async def test_many_folders_end_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAX_LISTED", 3)
    deep = tmp_path / "input/tenants/alice" / "/".join("abcdefgh")
    deep.mkdir(parents=True)
    (deep / "far.png").touch()
    assert (await FileListing(Directories(tmp_path)).listing(ALICE)).input == ()


async def test_a_file_that_vanishes_meanwhile_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "input/tenants/alice/a.png", 10)
    put(tmp_path, "input/tenants/alice/b.png", 10)

    def vanishing(path: str) -> str:
        (tmp_path / "input/tenants/alice/b.png").unlink(missing_ok=True)
        return path

    monkeypatch.setattr(files_module, "path_to_client", vanishing)
    assert (await FileListing(Directories(tmp_path)).listing(ALICE)).input == ("a.png",)
