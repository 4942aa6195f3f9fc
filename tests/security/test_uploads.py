"""Uploads under a name that is taken: ComfyUI compares each with every file of that name, on its event loop, so there are few of one name."""

from __future__ import annotations

import re

import pytest

from policy import upload_names
from proxy.files import upload_names as memory
from proxy.files.upload_names import TenantUploads
from tests.contract.driver import png, unique
from tests.matrix.people import Tenant, told
from tests.matrix.world import World

SIZE = (64, 64)
ROUTES = ("/upload/image", "/upload/mask")


@pytest.fixture(autouse=True)
def _few_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_names, "MAX_COMPARED_BYTES", 4000)
    monkeypatch.setattr(upload_names, "MASK_BYTES", 500)
    monkeypatch.setattr(memory, "MASK_BYTES", 500)


async def upload(tenant: Tenant, name: str, color: int, route: str = "/upload/image", **fields: str) -> str:
    """The name that it got."""
    answer = await tenant.upload(name, png((color, 0, 0, 255), "RGBA", SIZE), route, **fields)
    assert answer.status == 200, told(answer)
    stored: str = answer.json()["name"]
    return stored


async def original_of(tenant: Tenant) -> dict[str, str]:
    """What a mask is put on: the fields that say so."""
    name = await upload(tenant, f"{unique('original')}.png", 0)
    return {"original_ref": f'{{"filename": "{name}", "type": "input"}}'}


@pytest.mark.parametrize("route", ROUTES)
async def test_few_files_of_one_name_are_compared(world: World, route: str) -> None:
    mallory, stem = world.mallory, unique("same")
    fields = await original_of(mallory) if route == "/upload/mask" else {}
    names = [await upload(mallory, f"{stem}.png", color, route, **fields) for color in range(12)]
    assert names[:3] == [f"{stem}.png", f"{stem} (1).png", f"{stem} (2).png"], "as ComfyUI names them"
    numbered = [name for name in names if re.fullmatch(rf"{stem}( \(\d+\))?\.png", name)]
    apart = names[len(numbered) :]
    assert len(numbered) < 10
    assert len(set(apart)) == len(apart) > 0
    assert all(re.fullmatch(rf"{stem} \([0-9a-f]{{8}}\)\.png", name) for name in apart)
    for name in names:
        assert (await mallory.view(name, type="input")).status == 200
    assert await upload(world.alice, f"{stem}.png", 1) == f"{stem}.png", "a neighbour's are not hers"


@pytest.mark.parametrize("overwrite", ["", "true"], ids=["new", "overwriting"])
async def test_names_with_numbers_count_as_copies(world: World, overwrite: str) -> None:
    """ComfyUI compares an upload with `name (1).png` whoever numbered it."""
    mallory, stem = world.mallory, unique("numbered")
    await upload(mallory, f"{stem}.png", 0)
    fields = {"overwrite": overwrite} if overwrite else {}
    for number in range(1, 12):
        assert await upload(mallory, name := f"{stem} ({number}).png", number, **fields) == name
    assert re.fullmatch(rf"{stem} \([0-9a-f]{{8}}\)\.png", await upload(mallory, f"{stem}.png", 99))


async def test_what_overwrites_keeps_its_name(world: World) -> None:
    stem = unique("same")
    names = [await upload(world.mallory, f"{stem}.png", color) for color in range(12)]
    assert names[-1] != f"{stem} (11).png", "else this test tries nothing"
    for color in range(3):
        assert await upload(world.mallory, f"{stem}.png", color, overwrite="true") == f"{stem}.png"
    picture = (await world.mallory.view(f"{stem}.png", type="input")).body
    assert picture == png((2, 0, 0, 255), "RGBA", SIZE)


async def test_an_upload_that_is_there_already_is_no_copy(world: World) -> None:
    """A client that sends the same picture with each run gets the same name, however often."""
    stem = unique("again")
    for _ in range(12):
        assert await upload(world.mallory, f"{stem}.png", 7) == f"{stem}.png"
        assert await upload(world.mallory, f"{stem}.png", 8) == f"{stem} (1).png"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_NAMES", 3)
    uploads = TenantUploads()
    for name in "abcd":
        uploads.stored(f"{name}.png", f"{name} (9).png", 1000, is_mask=False)
        uploads.stored(f"{name} (9).png", f"{name} (9).png", 1000, is_mask=False)
        uploads.stored(f"{name} (4000).png", f"{name} (4000).png", 1000, is_mask=False)
    assert list(uploads._names) == list(uploads._numbered) == ["b.png", "c.png", "d.png"]
    assert uploads._numbered["d.png"] == {9: 1000}
    assert uploads.token("a.png", 1000, is_mask=False) is None
    assert uploads.token("b.png", 1000, is_mask=False) is not None
    assert list(uploads._names) == ["c.png", "d.png", "b.png"]
