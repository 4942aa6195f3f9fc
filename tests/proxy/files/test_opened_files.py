"""Files as their tenant gets them, opened to be read in any order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.principal import TenantId
from proxy.files.comfyui_ranges import Unreadable
from proxy.files.tenant_files import TenantFiles
from proxy.http.errors import UpstreamUnavailable
from tests.policy.media.files import REAL, own
from tests.proxy.files.test_tenant_files import long_animation, put
from tests.proxy.v2.assets.sdk import Standing, standing

ALICE = TenantId("alice")


@pytest.fixture(params=["seen", "unseen"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Standing]:
    async with standing(tmp_path, is_seen=request.param == "seen") as found:
        yield found


def files_of(world: Standing) -> TenantFiles:
    return world.gate.gate.dependencies.tenant_files


def path_of(name: str) -> UpstreamPath:
    return UpstreamPath(f"tenants/alice/{name}")


async def test_parts_in_any_order(world: Standing) -> None:
    for name, data in REAL.items():
        put(world, name, data)
        expected = own(data)
        async with files_of(world).open(ALICE, Folder.OUTPUT, path_of(name)) as file:
            assert file.size == len(data)
            assert file.stamp
            for offset, size in ((2000, 500), (0, 90), (len(data) - 10, 100), (0, len(data))):
                assert await file.read(offset, size) == expected[offset : offset + size], name
            assert await file.read(len(data) + 5, 10) == b""
        assert file.content_type != "text/plain"


async def test_an_upload_as_it_is(world: Standing) -> None:
    put(world, "a.png", REAL["saved.png"], folder="input")
    async with files_of(world).open(ALICE, Folder.INPUT, path_of("a.png")) as file:
        assert file.content_type == "image/png"
        assert await file.read(0, file.size) == REAL["saved.png"]


async def test_a_file_of_many_parts(world: Standing) -> None:
    data = long_animation(200)
    put(world, "long.png", data)
    for _ in range(2):
        async with files_of(world).open(ALICE, Folder.OUTPUT, path_of("long.png")) as file:
            read = b"".join([await file.read(start, 1_000_000) for start in range(0, len(data), 1_000_000)])
        assert read == own(data)


async def test_what_is_not_there_or_not_answered(world: Standing) -> None:
    files = files_of(world)
    with pytest.raises(FileNotFoundError):
        async with files.open(ALICE, Folder.OUTPUT, path_of("none.png")):
            pass
    assert world.comfy is not None
    await world.comfy.stop()
    with pytest.raises(UpstreamUnavailable):
        async with files.open(ALICE, Folder.OUTPUT, path_of("none.png")):
            pass


async def test_a_file_that_becomes_another_one_meanwhile(tmp_path: Path) -> None:
    async with standing(tmp_path, is_seen=False) as world:
        put(world, "a.png", REAL["saved.png"])
        async with files_of(world).open(ALICE, Folder.OUTPUT, path_of("a.png")) as file:
            put(world, "a.png", REAL["film.mp4"])
            with pytest.raises(Unreadable):
                await file.read(0, 10)
