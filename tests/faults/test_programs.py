"""The programs of these tests: killed for real, and the same again afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.programs import ComfyUI, PostgreSQL, listens, postgresql_programs
from tests.faults.recording import Record


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.mark.usefixtures("needs_postgresql")
async def test_a_killed_postgresql_leaves_no_process_and_starts_again(folder: Path) -> None:
    programs = postgresql_programs()
    assert programs is not None
    server = PostgreSQL("postgresql", folder)
    server.prepare(programs)
    try:
        for _ in range(2):
            await server.start()
            await server.is_up()
            children = psutil.Process(server.lives[-1]).children(recursive=True)
            await server.kill()
            psutil.wait_procs(children, timeout=240)  # which see that it is gone, and listen with it until then
            assert not [child for child in children if child.is_running()]
            assert not await listens(server.port)
    finally:
        await server.kill()


async def test_a_program_that_ends_by_itself_is_told(folder: Path) -> None:
    comfyui = ComfyUI("comfyui", folder)
    await comfyui.start()
    try:
        await comfyui.is_up()
        comfyui.check()
        second = ComfyUI("second", folder, port=comfyui.port)
        await second.start()
        await second.has_ended()
        with pytest.raises(AssertionError, match="second ended"):
            second.check()
    finally:
        await comfyui.kill()


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    assert (record.lines(), record.begun()) == ([], 0)
    record.write("begin", "id", "name")
    record.write("end", "id", "name")
    first, second = record.lines()
    assert (first.event, first.name, second.event, record.begun()) == ("begin", "name", "end", 1)
    assert first.at_s <= second.at_s
