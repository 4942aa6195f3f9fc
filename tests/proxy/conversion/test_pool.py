"""Processes that convert: they come and go with their work, and who breaks one breaks nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from proxy.conversion.order import Answer
from proxy.conversion.pool import COMMAND, ConverterPool, can_convert
from proxy.conversion.trial import try_formats
from proxy.conversion.worker import MAX_MEMORY_BYTES
from tests.proxy.conversion.orders import order, program, saved, shades

SAY = "answer(size_bytes=1, hash=str(os.getpid()))"
BREAK = "sys.exit(3)"


@asynccontextmanager
async def pool_of(command: Sequence[str] = COMMAND, **options: Any) -> AsyncIterator[ConverterPool]:
    pool = ConverterPool(command, **options)
    try:
        yield pool
    finally:
        await pool.stop()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return saved(shades(), tmp_path / "a.png")


def started(folder: Path) -> int:
    return len(list(folder.glob("started-*")))


def marked(folder: Path, text: str) -> tuple[str, ...]:
    """A program that leaves a mark when it starts."""
    return program(f"open({str(folder)!r} + f'/started-{{os.getpid()}}', 'x').close()\nfor asked in orders: {text}")


async def test_a_picture_is_converted_in_another_process(source: Path) -> None:
    asked = order(source, "webp")
    async with pool_of() as pool:
        answer = await pool.convert(asked)
    data = Path(asked.target).read_bytes()
    assert (answer.size_bytes, data[8:12]) == (len(data), b"WEBP")
    assert "proxy.conversion.pictures" not in sys.modules or "PIL" in sys.modules


async def test_what_is_made_for_a_gate_that_was_killed_goes(source: Path) -> None:
    asked = order(source, "webp")
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(*COMMAND, stdin=asyncio.subprocess.PIPE, stdout=writing)
    os.close(writing)
    os.close(reading)
    assert process.stdin is not None
    process.stdin.write(asked.line() + asked.line())
    assert await process.wait() == 0
    assert not Path(asked.target).exists()


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (SAY, "made"),
        ("answer(refused='No.')", "refused"),
        ("answer(failed='a disk')", "failed"),
        ("answer(is_gone=True)", "gone"),
        (BREAK, "refused"),
    ],
)
async def test_each_conversion_is_told_with_what_came_of_it(source: Path, text: str, result: str) -> None:
    told: list[tuple[str, str, bool]] = []
    async with pool_of(program(f"for asked in orders: {text}")) as pool:
        pool.on_converted = lambda asked, answer, seconds: told.append((asked.kind, answer.result, seconds > 0))
        await pool.convert(order(source, "webp"))
        await pool.convert(order(source, ""))
        assert pool.busy == 0
    assert told == [("webp", result, True), ("strip", result, True)]


async def test_so_many_at_once_and_the_same_again(source: Path) -> None:
    async with pool_of(program(f"for asked in orders: {SAY}"), processes=2) as pool:
        answers = await asyncio.gather(*(pool.convert(order(source, "webp")) for _ in range(20)))
    assert 1 <= len({answer.hash for answer in answers}) <= 2


async def test_without_work_they_end(source: Path) -> None:
    async with pool_of(program(f"for asked in orders: {SAY}"), idle_s=0) as pool:
        first = int((await pool.convert(order(source, "webp"))).hash)
        process = psutil.Process(first)
        await asyncio.to_thread(process.wait)
        assert int((await pool.convert(order(source, "webp"))).hash) != first, "and another one comes"


async def test_one_that_is_killed_in_the_midst_is_replaced(source: Path, tmp_path: Path) -> None:
    """As by a system that is short of memory."""
    half = "open(asked['target'], 'xb').write(b'half')"
    text = f"({half}, time.sleep(600)) if not os.path.exists({str(tmp_path / 'again')!r}) else ({half}, {SAY})"
    async with pool_of(marked(tmp_path, text)) as pool:
        converting = asyncio.ensure_future(pool.convert(order(source, "webp")))
        while not list(tmp_path.glob("*.webp")):
            await asyncio.sleep(0.01)
        (tmp_path / "again").touch()
        os.kill(int(next(tmp_path.glob("started-*")).name.partition("-")[2]), signal.SIGKILL)
        assert (await converting).hash
    assert started(tmp_path) == 2


async def test_a_file_that_breaks_it_is_refused_and_others_are_not(source: Path, tmp_path: Path) -> None:
    text = f"({SAY}) if asked['format'] == 'webp' else {BREAK}"
    async with pool_of(marked(tmp_path, text)) as pool:
        broken, whole = await asyncio.gather(pool.convert(order(source, "png")), pool.convert(order(source, "webp")))
        assert broken == Answer(refused="It breaks the program that converts it.")
        assert whole.hash
        assert (await pool.convert(order(source, "webp"))).hash


@pytest.mark.parametrize("text", ["print('nonsense', flush=True)", "answer(wrong=1)", "print('x' * 10**6, flush=True)"])
async def test_what_is_no_answer_is_none(source: Path, text: str) -> None:
    async with pool_of(program(f"for asked in orders: {text}")) as pool:
        assert (await pool.convert(order(source, "webp"))).refused == "It breaks the program that converts it."


async def test_a_decoder_that_takes_too_long_is_killed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"time.sleep(600) if asked['format'] == 'png' else {SAY}"
    async with pool_of(marked(tmp_path, text), time_limit_s=1.0) as pool:
        assert (await pool.convert(order(source, "png"))).refused == "To convert it takes too long."
        stuck = [
            int(mark.name.partition("-")[2]) for mark in tmp_path.glob("started-*")
        ]  # none, where it was slow to start
        monkeypatch.setattr(pool, "_time_limit_s", 600.0)
        assert (await pool.convert(order(source, "webp"))).hash
    assert not any(map(psutil.pid_exists, stuck))


async def test_a_program_that_is_not_there(source: Path) -> None:
    async with pool_of(("/nothing/here",)) as pool:
        assert (await pool.convert(order(source, "webp"))).refused == "It breaks the program that converts it."


async def test_stopping_ends_what_works(source: Path, tmp_path: Path) -> None:
    pool = ConverterPool(marked(tmp_path, "time.sleep(600)"))
    converting = asyncio.ensure_future(pool.convert(order(source, "webp")))
    while not started(tmp_path):
        await asyncio.sleep(0.01)
    converting.cancel()
    await asyncio.wait((converting,))
    await pool.stop()
    assert not psutil.pid_exists(int(next(tmp_path.glob("started-*")).name.partition("-")[2]))


async def test_it_has_nothing_of_the_gates(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its environment nor its sockets and files."""
    monkeypatch.setenv("COMFYGATE_SECRET", "canary")
    tell = "answer(refused=json.dumps([dict(os.environ), sorted(os.listdir('/proc/self/fd'))]))"
    with source.open("rb") as kept:
        os.set_inheritable(kept.fileno(), True)
        async with pool_of(program(f"for asked in orders: {tell}")) as pool:
            told = (await pool.convert(order(source, "webp"))).refused
    assert "canary" not in told
    environment, files = __import__("json").loads(told)
    assert set(environment) <= {
        "PATH",
        "PYTHONPATH",
        "LD_LIBRARY_PATH",
        "MALLOC_ARENA_MAX",
        "OMP_NUM_THREADS",
        "LC_CTYPE",
    }
    assert files == ["0", "1", "2", "3"], "the last one is the folder that it lists"


@pytest.mark.skipif(sys.platform != "linux", reason="limits and their reading are the system's")
async def test_it_has_little_memory_and_no_core(source: Path) -> None:
    async with pool_of() as pool:
        assert (await pool.convert(order(source, "webp"))).hash
        process = psutil.Process(pool._idle[0].pid)
        assert process.rlimit(psutil.RLIMIT_AS) == (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES)
        assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert process.rlimit(psutil.RLIMIT_FSIZE)[0] == order(source, "webp").max_bytes
        assert 0 < process.rlimit(psutil.RLIMIT_CPU)[0] < 120
        assert process.nice() >= 10
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "1000\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know no such limit")
async def test_a_picture_that_needs_too_much_is_refused(tmp_path: Path) -> None:
    """256 million pixels are 256 MB, and 1 GB with the colors of a WebP."""
    source = tmp_path / "large.png"
    exif = Image.Exif()
    exif[274] = 6
    Image.new("L", (16_000, 16_000)).save(source, exif=exif)
    async with pool_of() as pool:
        answer = await pool.convert(order(source, "webp", max_pixels=10**9))
        assert answer.refused == "It needs more memory than a conversion may take."
        small = saved(shades(), tmp_path / "a.png")
        assert (await pool.convert(order(small, "webp"))).hash


async def test_a_file_that_becomes_too_large_is_refused(tmp_path: Path) -> None:
    source = saved(Image.effect_noise((256, 256), 80).convert("RGB"), tmp_path / "a.png")
    async with pool_of() as pool:
        for kind in ("png", "jpeg", "webp", "avif"):
            answer = await pool.convert(order(source, kind, max_bytes=1000))
            assert answer.refused == "It would have more than 1000 bytes."
        assert (await pool.convert(order(source, "webp"))).hash, "the next one has its own bound"


GATE = """
import asyncio, sys, time
from proxy.conversion.pool import ConverterPool
from proxy.conversion.order import Order

async def main():
    pool = ConverterPool(idle_s=600)
    await pool.convert(Order(*sys.argv[1:3], "webp", 80, 10**6, 10**6))
    print(pool._idle[0].pid, flush=True)
    time.sleep(600)

asyncio.run(main())
"""


async def test_it_ends_with_a_gate_that_is_killed(source: Path) -> None:
    asked = order(source, "webp")
    gate = await asyncio.create_subprocess_exec(
        sys.executable, "-c", GATE, asked.source, asked.target, stdout=asyncio.subprocess.PIPE
    )
    assert gate.stdout is not None
    process = psutil.Process(int(await gate.stdout.readline()))
    gate.kill()
    await gate.wait()
    await asyncio.to_thread(process.wait)


async def test_a_check_tells_what_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_convert()
    assert await try_formats({"png", "jpeg", "webp", "avif"}) == []
    (told,) = await try_formats({"gif"})
    assert told.startswith("outputs cannot be given as gif")
