"""What goes wrong when a result is made is told in words, and not tried again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policy.functions.conversion import NotDerived
from policy.v2.asset_files import DerivedFile
from policy.violation import Reason
from proxy.conversion import conversions as conversions_module
from proxy.conversion.conversions import FAILED_S, REFUSED_S
from proxy.http.errors import UpstreamUnavailable
from standin import StandIn
from tests.proxy.conversion.orders import png
from tests.proxy.conversion.world import ALICE, COUNT, MANY, counting, world_in, written


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


async def test_who_waited_for_one_that_was_refused_does_not_try_it_again(tmp_path: Path) -> None:
    file = written(tmp_path, b"no picture")
    text = COUNT + "answer(refused='It is broken.')"
    async with world_in(tmp_path, directory=tmp_path, command=counting(tmp_path, text)) as world:
        refusals = await asyncio.gather(*(world.refusal(file) for _ in range(MANY)))
        assert len({refusal.message for refusal in refusals}) == 1
        assert world.made == 1
        # And everybody has given back the turn.
        world.clock.pass_s(REFUSED_S)
        await world.refusal(file)


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
