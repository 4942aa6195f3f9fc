"""Results in another form: made once, whoever asks and how often; kept over a restart; and what goes wrong is told in words."""

from __future__ import annotations

import asyncio
import io
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from PIL import Image

from policy.functions.conversion import Derived, NotDerived, Recipe
from policy.functions.results import Result
from policy.principal import TenantId
from policy.violation import Reason, Violation
from proxy.conversion import conversions as conversions_module
from proxy.conversion.conversions import MAX_AT_ONCE
from proxy.conversion.opened import open_derived
from proxy.http.errors import UpstreamUnavailable
from standin import StandIn
from tests.proxy.conversion.orders import png, program
from tests.proxy.conversion.world import ALICE, MALLORY, MANY, TELL, counting, world_in, written
from tests.proxy.upstreams import GUARD_S


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


async def test_what_is_deleted_while_it_is_converted_is_not_kept(tmp_path: Path) -> None:
    file = written(tmp_path)
    held = "import os; open({folder!r} + '/begun', 'x').close()\n while not os.path.exists({folder!r} + '/go'): time.sleep(0.01)\n "
    command = program("for asked in orders:\n " + (held + TELL).format(folder=str(tmp_path)))
    async with world_in(tmp_path, directory=tmp_path, command=command) as world:
        giving = asyncio.create_task(world.give(file))
        while not (tmp_path / "begun").exists():
            await asyncio.sleep(0.01)
        await world.conversions.forget(ALICE, file.asset)
        (tmp_path / "go").touch()
        with pytest.raises(Violation) as refused:
            await giving
        assert refused.value.reason == Reason.NOT_FOUND
        assert list((tmp_path / "converted" / "alice").iterdir()) == []
        assert world.kept.used_bytes == 0


async def test_of_many_tenants_few_have_drafts_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go, begun = asyncio.Event(), list[str]()
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path)) as world:
        draft = world.kept.draft

        async def held(tenant: TenantId) -> Path:
            begun.append(tenant)
            await may_go.wait()
            return await draft(tenant)

        monkeypatch.setattr(world.kept, "draft", held)
        tenants = [TenantId(f"t{number}") for number in range(20)]
        files = [written(tmp_path, tenant=tenant) for tenant in tenants]
        async with asyncio.TaskGroup() as group:
            for tenant, file in zip(tenants, files, strict=True):
                group.create_task(world.give(file, tenant))
            while len(begun) < MAX_AT_ONCE:
                await asyncio.sleep(0.01)
            for _ in range(100):
                await asyncio.sleep(0)
            assert len(begun) == MAX_AT_ONCE
            may_go.set()
        assert len(begun) == 2 * len(tenants)


async def test_what_waits_is_counted_and_what_is_converted_is_not(tmp_path: Path) -> None:
    held = "while not os.path.exists({folder!r} + '/go'): time.sleep(0.01)\n "
    command = program("import os\nfor asked in orders:\n " + (held + TELL).format(folder=str(tmp_path)))
    files = [written(tmp_path, name=f"{number}.png") for number in range(3)]
    async with world_in(tmp_path, directory=tmp_path, command=command) as world:
        async with asyncio.TaskGroup() as group:
            for file in files:
                group.create_task(world.give(file))
            while world.conversions.waiting != 2 or world.conversions._pool.busy != 1:
                await asyncio.sleep(0.01)
            (tmp_path / "go").touch()
        assert (world.conversions.waiting, world.conversions._pool.busy) == (0, 0)


async def test_no_more_is_remembered_of_deletions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversions_module, "MAX_FORGOTTEN", 3)
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path)) as world:
        for number in range(9):
            await world.conversions.forget(ALICE, written(tmp_path, name=f"{number}.png").asset)
        assert len(world.conversions._forgotten) == 3


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
