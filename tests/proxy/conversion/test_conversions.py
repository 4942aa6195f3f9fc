"""Results in another form: made once, whoever asks and how often; kept over a restart; and what goes wrong is told in words."""

from __future__ import annotations

import asyncio
import io
import os
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from PIL import Image

from policy.functions.conversion import Derived, NotDerived, Recipe
from policy.functions.results import Result
from policy.namespace import Folder, Namespace
from policy.principal import TenantId
from policy.v2.asset_files import DerivedFile, stored_file
from policy.v2.assets import Asset
from policy.violation import Reason, Violation
from proxy.conversion import conversions as conversions_module
from proxy.conversion.conversions import FAILED_S, REFUSED_S, Conversions
from proxy.conversion.kept_files import KeptFile, KeptFiles
from proxy.conversion.opened import open_derived
from proxy.conversion.pool import COMMAND, ConverterPool
from proxy.conversion.sources import Sources
from proxy.http.errors import UpstreamUnavailable
from proxy.upstream.client import Upstream
from standin import StandIn
from tests.proxy.conftest import Clock
from tests.proxy.conversion.orders import png, program
from tests.proxy.upstreams import GUARD_S

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
WEBP = Recipe("webp", 80)
MANY = 100
# What it writes is no picture, but a file like any other.
COUNT = "open(asked['target'], 'xb').write(b'made'); open({folder!r} + '/made', 'a').write('x'); "
TELL = COUNT + "answer(size_bytes=4, hash='blake3:' + '0a' * 32)"


class World:
    def __init__(self, folder: Path, url: str, directory: Path | None, command: Sequence[str], max_bytes: int) -> None:
        self.folder = folder
        self.clock = Clock()
        self.upstream = Upstream(url, 5.0)
        self.kept = KeptFiles(folder / "converted", lambda: max_bytes)
        self.max_pixels = 10**6
        self.conversions = Conversions(
            self.kept,
            ConverterPool(command),
            Sources(self.upstream, directory),
            lambda: self.max_pixels,
            self.clock,
        )

    @property
    def made(self) -> int:
        counted = self.folder / "made"
        return len(counted.read_text()) if counted.exists() else 0

    async def give(self, file: DerivedFile, tenant: TenantId = ALICE) -> KeptFile:
        found = await self.conversions.give(tenant, file)
        found.release()
        return found

    async def refusal(self, file: DerivedFile) -> Violation:
        with pytest.raises(Violation) as refused:
            await self.give(file)
        return refused.value


def written(
    base: Path, data: bytes | None = None, name: str = "a.png", tenant: TenantId = ALICE, **more: Any
) -> DerivedFile:
    """A file of ComfyUI's, as it was measured."""
    data = png() if data is None else data
    file = base / "output" / "tenants" / tenant / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    found = file.stat()
    fields: dict[str, Any] = {
        "file_path": name,
        "content_type": "image/png",
        "size_bytes": len(data),
        "asset_id": f"{tenant}-{name}",
        "hash": f"blake3:{blake3(data).hexdigest()}",
        "stamp": f"{found.st_mtime_ns:x}-{found.st_size:x}",
        "created_at_s": 1.0,
        "folder": Folder.OUTPUT,
        "path": name,
    }
    asset = Asset(**(fields | more))
    return DerivedFile(asset, WEBP, stored_file(asset, Namespace(tenant), lambda _: False, "GET"))


@asynccontextmanager
async def world_in(
    folder: Path,
    *,
    url: str = "http://127.0.0.1:9",
    directory: Path | None = None,
    command: Sequence[str] = COMMAND,
    max_bytes: int = 10**6,
) -> AsyncIterator[World]:
    found = World(folder, url, directory, command, max_bytes)
    try:
        yield found
    finally:
        await found.conversions.stop()
        await found.upstream.stop()


def counting(folder: Path, text: str = TELL) -> tuple[str, ...]:
    return program("for asked in orders: " + text.format(folder=str(folder)))


async def test_a_hundred_that_ask_at_once_make_one(tmp_path: Path) -> None:
    file = written(tmp_path)
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path)) as world:
        found = await asyncio.gather(*(world.give(file) for _ in range(MANY)))
        assert {each.path.read_bytes() for each in found} == {b"made"}
        assert world.made == 1
        assert found[0].users == 0
        assert await world.conversions.look(ALICE, [file] * 3, is_awaited=True) == [Derived(4, found[0].hash)] * 3
        assert world.made == 1


@pytest.mark.parametrize("is_seen", [True, False], ids=["on disk", "from ComfyUI"])
async def test_a_picture_is_given_in_its_form(tmp_path: Path, comfy: StandIn, is_seen: bool) -> None:
    base = Path(comfy.folders.base)
    file = written(base, size_bytes=0)
    async with world_in(tmp_path, url=comfy.url, directory=base if is_seen else None) as world:
        found = await world.give(file)
        with Image.open(found.path) as picture:
            assert picture.format == "WEBP"
        data = found.path.read_bytes()
        assert (found.size_bytes, found.hash) == (len(data), f"blake3:{blake3(data).hexdigest()}")
        assert [each.name for each in (tmp_path / "converted" / "alice").iterdir()] == [found.path.name], (
            "no draft is left"
        )


async def test_after_a_restart_nothing_is_made_again(tmp_path: Path) -> None:
    file = written(tmp_path)
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path)) as world:
        await world.give(file)
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path)) as world:
        # Nobody waits, and what is there is told all the same once it was looked at.
        await world.kept.open()
        (told,) = await world.conversions.look(ALICE, [file], is_awaited=False)
        assert isinstance(told, Derived)
        assert (await world.give(file)).path.read_bytes() == b"made"
        assert world.made == 1


async def test_other_bytes_another_quality_and_another_tenant_are_other_files(tmp_path: Path) -> None:
    file = written(tmp_path)
    others = [
        replace(file, recipe=Recipe("webp", 81)),
        written(tmp_path, png((8, 8)), name="b.png", asset_id=file.asset.asset_id),
        written(tmp_path, tenant=MALLORY, asset_id=file.asset.asset_id),
    ]
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path)) as world:
        paths = {(await world.give(file)).path}
        for number, other in enumerate(others):
            paths.add((await world.give(other, MALLORY if number == 2 else ALICE)).path)
        assert world.made == len(paths) == 4
        assert {path.parent.name for path in paths} == {"alice", "mallory"}


async def test_what_is_not_waited_for_is_not_made(tmp_path: Path) -> None:
    file = written(tmp_path)
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path)) as world:
        unmeasured = replace(file, asset=replace(file.asset, hash=None))
        assert await world.conversions.look(ALICE, [file, unmeasured], is_awaited=False) == [NotDerived()] * 2
        assert await world.conversions.look(ALICE, [unmeasured], is_awaited=True) == [NotDerived()]
        assert world.made == 0
        with pytest.raises(UpstreamUnavailable):
            await world.give(unmeasured)


async def test_what_takes_longer_than_the_answer_may_is_not_made_yet(tmp_path: Path, monkeypatch: Any) -> None:
    """It goes on being made, and is there the next time; one of a tenant at a time."""
    monkeypatch.setattr(conversions_module, "LIST_WAIT_S", 0.05)
    go = tmp_path / "go"
    wait = f"[time.sleep(0.01) for _ in iter(lambda: os.path.exists({str(go)!r}), True)]; "
    files = [written(tmp_path, name=f"{number}.png") for number in range(3)]
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path, wait + TELL)) as world:
        assert await world.conversions.look(ALICE, files, is_awaited=True) == [NotDerived()] * 3
        go.touch()
        assert (await world.give(files[0])).users == 0
        assert world.made == 1


async def test_a_tenants_pictures_wait_for_each_other_and_not_for_a_neighbours(tmp_path: Path) -> None:
    go = tmp_path / "go"
    wait = f"[time.sleep(0.01) for _ in iter(lambda: 'alice' not in asked['source'] or os.path.exists({str(go)!r}), True)]; "
    many = [written(tmp_path, name=f"{number}.png") for number in range(20)]
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path, wait + TELL)) as world:
        waiting = [asyncio.ensure_future(world.give(file)) for file in many]
        await asyncio.sleep(0)
        assert (await world.give(written(tmp_path, tenant=MALLORY), MALLORY)).path.exists()
        assert not any(each.done() for each in waiting)
        go.touch()
        await asyncio.gather(*waiting)


async def test_who_leaves_stops_nothing_and_holds_nothing(tmp_path: Path) -> None:
    go, file = tmp_path / "go", written(tmp_path)
    wait = f"[time.sleep(0.01) for _ in iter(lambda: os.path.exists({str(go)!r}), True)]; "
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path, wait + TELL)) as world:
        first, second = (asyncio.ensure_future(world.give(file)) for _ in range(2))
        while not list((tmp_path / "converted").glob("*")):
            await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.wait((first,))
        go.touch()
        assert (await second).users == 0
        assert world.made == 1


# What goes wrong.


async def test_what_was_refused_is_told_again_and_tried_anew_after_a_while(tmp_path: Path) -> None:
    file = written(tmp_path, b"no picture")
    text = COUNT + "answer(refused='It is broken.')"
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path, text)) as world:
        words = "This output cannot be given as webp. It is broken."
        for _ in range(3):
            refusal = await world.refusal(file)
            assert (refusal.reason, refusal.message) == (Reason.CONVERSION_FAILED, words)
        assert await world.conversions.look(ALICE, [file], is_awaited=True) == [NotDerived(words)]
        assert world.made == 1
        world.clock.pass_s(REFUSED_S)
        await world.refusal(file)
        assert world.made == 2
        assert not list((tmp_path / "converted" / "alice").iterdir())


async def test_what_is_the_gates_own_fault_stands_in_the_log(tmp_path: Path, caplog: Any) -> None:
    file = written(tmp_path)
    text = COUNT + "answer(failed='the disk is full')"
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path, text)) as world:
        refusal = await world.refusal(file)
        assert "The operator finds why" in refusal.message
        assert "disk" not in refusal.message
        assert "the disk is full" in caplog.text
        world.clock.pass_s(FAILED_S)
        await world.refusal(file)
        assert world.made == 2


async def test_a_folder_that_cannot_be_used(tmp_path: Path, caplog: Any) -> None:
    file = written(tmp_path)
    (tmp_path / "converted").write_text("a file")
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path)) as world:
        assert (await world.refusal(file)).reason is Reason.CONVERSION_FAILED
        assert "cannot be written" in caplog.text


async def test_refusals_are_forgotten_when_there_are_many(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(conversions_module, "MAX_REFUSED", 2)
    files = [written(tmp_path, name=f"{number}.png") for number in range(3)]
    text = COUNT + "answer(refused='It is broken.')"
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path, text)) as world:
        for file in (*files, *files[1:], files[0]):
            await world.refusal(file)
        assert world.made == 4


async def overwritten(base: Path, file: DerivedFile) -> DerivedFile:
    (base / "output" / "tenants" / "alice" / "a.png").write_bytes(png((9, 9)))
    return file


async def deleted(base: Path, file: DerivedFile) -> DerivedFile:
    (base / "output" / "tenants" / "alice" / "a.png").unlink()
    return file


@pytest.mark.parametrize("change", [overwritten, deleted])
@pytest.mark.parametrize("is_seen", [True, False], ids=["on disk", "from ComfyUI"])
async def test_a_file_that_is_gone_or_another_one_is_not_there(
    tmp_path: Path, comfy: StandIn, is_seen: bool, change: Callable[[Path, DerivedFile], Any]
) -> None:
    """It may be a neighbour's, as previews are."""
    base = Path(comfy.folders.base)
    file = await change(base, written(base))
    async with world_in(tmp_path, url=comfy.url, directory=base if is_seen else None) as world:
        assert (await world.refusal(file)).reason is Reason.NOT_FOUND
        assert list((tmp_path / "converted" / "alice").iterdir()) == []


async def test_while_comfyui_is_away_and_it_alone_has_the_file(tmp_path: Path) -> None:
    file = written(tmp_path)
    async with world_in(tmp_path) as world:
        with pytest.raises(UpstreamUnavailable):
            await world.give(file)
        assert await world.conversions.look(ALICE, [file], is_awaited=True) == [NotDerived()]


async def test_what_comfyui_sends_is_bounded(tmp_path: Path, comfy: StandIn) -> None:
    file = written(Path(comfy.folders.base), b"x" * 300_000)
    async with world_in(tmp_path, url=comfy.url) as world:
        assert "too large" in (await world.refusal(file)).message
        assert list((tmp_path / "converted" / "alice").iterdir()) == []


async def test_the_bound_of_pixels_is_the_one_in_force(tmp_path: Path) -> None:
    file = written(tmp_path)
    async with world_in(tmp_path, directory=tmp_path) as world:
        world.max_pixels = 100
        assert "at most 100 are converted" in (await world.refusal(file)).message


async def test_what_is_deleted_takes_its_forms_along(tmp_path: Path) -> None:
    file = written(tmp_path)
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path)) as world:
        found = await world.give(file)
        await world.conversions.forget(ALICE, file.asset)
        assert not found.path.exists()


async def test_what_is_too_old_goes_with_its_original(tmp_path: Path) -> None:
    old = written(tmp_path, name="old.png")
    files = [replace(old, asset=replace(old.asset, stamp="")), written(tmp_path)]  # the first one is of 1970
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path)) as world:
        paths = [(await world.give(file)).path for file in files]
        sweeping = asyncio.ensure_future(
            world.conversions.sweep_forever(
                lambda: [ALICE, MALLORY], lambda tenant: 3600.0 if tenant == ALICE else None
            )
        )
        async with asyncio.timeout(GUARD_S):
            while paths[0].exists():
                await asyncio.sleep(0.01)
        sweeping.cancel()
        await asyncio.wait((sweeping,))
        assert paths[1].exists()


async def test_who_copies_it_elsewhere_gets_what_its_client_gets(tmp_path: Path) -> None:
    file = written(tmp_path)
    async with world_in(tmp_path, directory=tmp_path) as world:
        result = Result(file.asset, "picture", 0, file.recipe)
        async with open_derived(world.conversions, ALICE, result, lambda _: False) as opened:
            data = b"".join([piece async for piece in opened.chunks()])
            told = (opened.name, opened.content_type, opened.size_bytes, opened.hash)
        found = await world.give(file)
        assert told == ("a.webp", "image/webp", len(data), f"blake3:{blake3(data).hexdigest()}")
        assert (data, found.users) == (found.path.read_bytes(), 0)
        film = Result(replace(file.asset, content_type="video/mp4"), "picture", 0, file.recipe)
        with pytest.raises(Violation, match="is no picture"):
            async with open_derived(world.conversions, ALICE, film, lambda _: False):
                pass


async def test_a_large_picture_is_nothing_that_the_gate_holds(tmp_path: Path) -> None:
    """24 million pixels are 72 MB where they are converted."""
    body = io.BytesIO()
    Image.new("RGB", (6000, 4000), "red").save(body, "PNG")
    file = written(tmp_path, body.getvalue())
    async with world_in(tmp_path, directory=tmp_path) as world:
        world.max_pixels = 10**8
        tracemalloc.start()
        try:
            await world.give(file)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 2 * 1024**2


async def test_a_picture_that_comfyui_sends_is_nothing_that_the_gate_holds_either(
    tmp_path: Path, comfy: StandIn
) -> None:
    data = os.urandom(24 * 1024**2)
    file = written(Path(comfy.folders.base), data, size_bytes=0)
    text = "open(asked['target'], 'xb').write(b'made'); answer(size_bytes=4, hash='blake3:' + '0a' * 32)"
    async with world_in(
        tmp_path, url=comfy.url, command=program(f"for asked in orders: {text}"), max_bytes=10**9
    ) as world:
        tracemalloc.start()
        try:
            await world.give(file)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < len(data) / 2
