"""proxy/files/directories.py, and what reads the folders of several ComfyUIs: every file once, each where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policy.call import UpstreamPath
from policy.makers import maker_of
from policy.namespace import Folder
from policy.principal import TenantId
from proxy.files.comfyui_folders import ComfyUIFolders
from proxy.files.directories import Directories
from proxy.files.listing import FileListing
from proxy.jobs.temp_files import Left

ALICE = TenantId("alice")
MADE = UpstreamPath("tenants/alice/@gpu-2/a.png")


def find_maker(folder: Folder, path: UpstreamPath) -> str:
    return "" if folder is Folder.INPUT else maker_of(path)


@pytest.fixture
def two(tmp_path: Path) -> Directories:
    return Directories(tmp_path / "one", {"gpu-2": tmp_path / "two"}, maker_of=find_maker)


def put(directories: Directories, comfyui: str, name: str, *, size: int = 1, at_s: float = 10.0) -> Path:
    base = directories.others.get(comfyui, directories.first)
    assert base is not None
    file = base / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    os.utime(file, (at_s, at_s))
    return file


def put_all(two: Directories) -> list[Path]:
    """Of sizes that are told apart in a sum. What the gate has copied comes first."""
    return [
        put(two, "gpu-2", "input/tenants/alice/i.png", size=1),
        put(two, "gpu-2", "output/tenants/alice/o.png", size=10),
        put(two, "gpu-1", f"output/{MADE}", size=100),
        put(two, "gpu-1", "input/tenants/alice/i.png", size=1000, at_s=20),
        put(two, "gpu-1", "output/tenants/alice/o.png", size=10_000, at_s=30),
        put(two, "gpu-2", f"output/{MADE}", size=100_000, at_s=40),
        put(two, "gpu-1", "user/default/tenants/alice/w.json", size=1_000_000),
        put(two, "gpu-2", "user/default/tenants/alice/w.json", size=10_000_000),
        put(two, "gpu-2", "output/tenants/bob/@gpu-2/secret.png", size=100_000_000),
    ]


async def test_a_file_is_found_where_it_was_made(two: Directories) -> None:
    put_all(two)
    disk = ComfyUIFolders(two)
    found = await disk.find(Folder.OUTPUT, MADE)
    assert found is not None
    assert found.stat().st_size == 100_000
    assert [stamp and stamp.partition("-")[2] for stamp in await disk.stamps([(Folder.OUTPUT, MADE)])] == ["186a0"]


async def test_every_file_is_counted_once(two: Directories) -> None:
    put_all(two)
    temp = put(two, "gpu-2", "temp/p.png", size=200_000_000)
    put(two, "gpu-1", "temp/p.png", size=5)
    disk = ComfyUIFolders(two)
    assert await disk.usage_bytes(ALICE, [("p.png", Left(100.0, "gpu-2"))]) == 201_111_000
    await disk.delete_temp([("p.png", Left(100.0, "gpu-2"))])
    assert not temp.exists()
    assert (two.first or temp).joinpath("temp/p.png").exists(), "it is another one's of that name"


async def test_every_file_is_listed_once(two: Directories) -> None:
    put_all(two)
    listing = await FileListing(two).listing(ALICE)
    assert (listing.input, listing.output) == (("i.png",), ("@gpu-2/a.png", "o.png"))


async def test_retention_is_of_copies_too(two: Directories) -> None:
    files = put_all(two)
    assert await ComfyUIFolders(two).delete_older(ALICE, 1.0) == 6
    assert [file.exists() for file in files] == [False] * 6 + [True] * 3


@pytest.mark.parametrize(
    ("folder", "path", "gone"),
    [(Folder.INPUT, "tenants/alice/i.png", (0, 3)), (Folder.OUTPUT, MADE, (2, 5)), (Folder.OUTPUT, "tenants/alice/o.png", (1, 4))],
)  # fmt: skip
async def test_what_is_deleted_is_deleted_everywhere(
    two: Directories, folder: Folder, path: str, gone: tuple[int, int]
) -> None:
    files = put_all(two)
    await ComfyUIFolders(two).delete(ALICE, folder, UpstreamPath(path), "")
    assert tuple(index for index, file in enumerate(files) if not file.exists()) == gone


async def test_folders_that_are_shared_are_read_once(tmp_path: Path) -> None:
    shared = Directories(tmp_path, {"gpu-2": None, "gpu-3": tmp_path / "three"}, frozenset({"gpu-2", "gpu-3"}))
    put(shared, "gpu-1", f"output/{MADE}", size=7)
    listing = await FileListing(shared).listing(ALICE)
    assert listing.output == ("@gpu-2/a.png",)
    assert await ComfyUIFolders(shared).usage_bytes(ALICE) == 7
    assert shared.temp_of("gpu-2") is None
    assert shared.temp_of("gpu-3") == tmp_path / "three/temp"
    assert shared.temp_of("gpu-1") == tmp_path / "temp"


async def test_what_is_not_seen_is_not_said_to_be_gone(tmp_path: Path) -> None:
    disk = ComfyUIFolders(Directories(tmp_path, {"gpu-2": None}, maker_of=find_maker))
    assert not disk.sees(Folder.OUTPUT, MADE)
    assert disk.sees(Folder.OUTPUT, UpstreamPath("tenants/alice/o.png"))
    assert await disk.find(Folder.OUTPUT, MADE) is None
    assert await disk.delete_older(ALICE, 1.0) == 0


async def test_what_one_made_that_has_gone_is_not_seen_anywhere(two: Directories) -> None:
    """The first has copies, and in its temp folder other files of the same names."""
    put_all(two)
    ours, neighbours = put(two, "gpu-2", "temp/p.png"), put(two, "gpu-1", "temp/p.png", size=5)
    absent: set[str] = set()
    two.absent = absent
    disk = ComfyUIFolders(two)
    assert disk.sees(Folder.OUTPUT, MADE)
    two.change({}, frozenset())
    absent.add("gpu-2")
    assert await disk.find(Folder.OUTPUT, MADE) is None
    assert not disk.sees(Folder.OUTPUT, MADE)
    assert two.temp_of("gpu-2") is None
    await disk.delete_temp([("p.png", Left(100.0, "gpu-2"))])
    assert neighbours.exists()
    assert ours.exists()
    assert disk.sees(Folder.INPUT, MADE), "inputs are the first one's"
    assert two.writer_of(Folder.OUTPUT, MADE) == "gpu-2", "whose name stands in what it has saved"
    assert two.writer_of(Folder.OUTPUT, UpstreamPath("tenants/alice/@gpu-9/a.png")) == ""


def test_another_one_comes_and_one_becomes_another(two: Directories, tmp_path: Path) -> None:
    two.change({"gpu-2": tmp_path / "two", "gpu-3": tmp_path / "three"}, frozenset({"gpu-2"}))
    roots = [home.root for home in two.homes_of(ALICE, Folder.OUTPUT)]
    assert roots == [tmp_path / name / "output/tenants/alice" for name in ("one", "three")]
    assert two.temp_of("gpu-2") == tmp_path / "two/temp"
