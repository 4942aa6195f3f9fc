"""What is kept is compressed in a process beside the gate, which comes and goes with its work, and whose failure costs nothing else."""

from __future__ import annotations

import asyncio
import gzip
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import brotli
import psutil
import pytest

from proxy.http.codecs import CODINGS
from proxy.upstream import compressor as compressor_module
from proxy.upstream.compressor import COMMAND, CompressionFailed, Compressor
from proxy.upstream.compressor_process import ANSWER, QUESTION, serve

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DATA = b"the lighthouse keeper counts the storms\n" * 200
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": zstd.decompress,
}


@asynccontextmanager
async def compressing(command: Sequence[str] = COMMAND, **options: Any) -> AsyncIterator[Compressor]:
    compressor = Compressor(command, **options)
    try:
        yield compressor
    finally:
        await compressor.stop()


_of_others: set[int] = set()


@pytest.fixture(autouse=True)
def before() -> Iterator[None]:
    """What other tests leave to the end, as the browser's driver, is none of these."""
    _of_others.update(child.pid for child in psutil.Process().children())
    yield
    _of_others.clear()


def children() -> list[psutil.Process]:
    alive = (child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE)
    return [child for child in alive if child.pid not in _of_others]


def program(text: str) -> tuple[str, ...]:
    """Runs instead of the codecs. It may use these names."""
    return (sys.executable, "-c", f"import sys, os, time; read, write = sys.stdin.buffer, sys.stdout.buffer\n{text}")


@pytest.mark.parametrize("coding", CODINGS)
async def test_what_comes_back_is_the_same(coding: str) -> None:
    async with compressing() as compressor:
        packed = await compressor.best(coding, DATA)
        assert len(packed) < len(DATA) / 10
        assert UNPACK[coding](packed) == DATA


async def test_one_process_does_all_that_is_asked_for_at_once() -> None:
    async with compressing(idle_s=60) as compressor:
        wanted = [bytes([65 + number]) * 3000 for number in range(12)]
        packed = await asyncio.gather(*(compressor.best(CODINGS[n % 3], data) for n, data in enumerate(wanted)))
        assert [UNPACK[CODINGS[n % 3]](data) for n, data in enumerate(packed)] == wanted
        assert len(children()) == 1
    assert children() == []


async def test_more_than_a_pipe_holds_goes_through_it() -> None:
    async with compressing() as compressor:
        data = bytes(range(256)) * 8192 + compressor_module.__file__.encode()
        assert gzip.decompress(await compressor.best("gzip", data)) == data


async def test_without_work_the_process_ends() -> None:
    async with compressing(idle_s=0) as compressor:
        await compressor.best("gzip", DATA)
        (process,) = children()
        await asyncio.to_thread(process.wait)
        assert gzip.decompress(await compressor.best("gzip", DATA)) == DATA, "and another one comes"


async def test_it_ends_with_the_gate_in_the_midst_of_its_work() -> None:
    never = program("read.read(1); time.sleep(600)")
    async with compressing(never) as compressor:
        asking = asyncio.ensure_future(compressor.best("gzip", DATA))
        while not children():
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait((asking,))
        await compressor.stop()
        assert children() == []


async def test_it_ends_with_the_gate_in_the_midst_of_an_answer(tmp_path: Path) -> None:
    """What it has said by then is more than anybody reads of it."""
    is_read = tmp_path / "read"
    endless = program(
        "read.read(9); write.write((1 << 40).to_bytes(8))\n"
        "for number in range(1 << 30):\n"
        "  write.write(bytes(1 << 16))\n"
        f"  if number == 16: open({str(is_read)!r}, 'x').close()"
    )
    async with compressing(endless) as compressor:
        asking = asyncio.ensure_future(compressor.best("gzip", DATA))
        while not is_read.exists():
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait((asking,))
        await compressor.stop()
        assert children() == []


GATE = """
import asyncio, psutil, time
from proxy.upstream.compressor import Compressor

async def main():
    await Compressor(idle_s=600).best("gzip", b"x" * 3000)
    print(psutil.Process().children()[0].pid, flush=True)
    time.sleep(600)

asyncio.run(main())
"""


async def test_it_ends_when_the_gate_is_killed() -> None:
    gate = await asyncio.create_subprocess_exec(sys.executable, "-c", GATE, stdout=asyncio.subprocess.PIPE)
    assert gate.stdout is not None
    process = psutil.Process(int(await gate.stdout.readline()))
    gate.kill()
    await gate.wait()
    await asyncio.to_thread(process.wait, 240)


def test_half_a_question_ends_it() -> None:
    """The pipes of a gate that is gone are closed."""
    answers = BytesIO()
    head = QUESTION.pack(2, len(DATA))
    serve(BytesIO(head + DATA + head + DATA[:100]), answers)
    (size,) = ANSWER.unpack(answers.getvalue()[: ANSWER.size])
    assert gzip.decompress(answers.getvalue()[ANSWER.size :]) == DATA
    assert len(answers.getvalue()) == ANSWER.size + size, "one answer"


@pytest.mark.parametrize(
    "command",
    [("/nowhere/python",), program("sys.exit(1)"), program("read.read(100)"), program("write.write(b'abc')")],
    ids=["no program", "ends", "ends late", "half an answer"],
)
async def test_a_failure_is_told_once_and_it_rests(
    command: Sequence[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with compressing(command) as compressor:
        with caplog.at_level(logging.WARNING, "comfygate"):
            for _ in range(3):
                with pytest.raises(CompressionFailed):
                    await compressor.best("gzip", DATA)
        assert len(caplog.records) == 1
        monkeypatch.setattr(compressor, "_command", COMMAND)
        monkeypatch.setattr(compressor, "_rests_until_s", 0.0)
        assert gzip.decompress(await compressor.best("gzip", DATA)) == DATA


async def test_what_takes_too_long_is_given_up() -> None:
    async with compressing(program("time.sleep(600)"), time_limit_s=0) as compressor:
        with pytest.raises(CompressionFailed):
            await compressor.best("gzip", DATA)
        await compressor.stop()
        assert children() == []


async def test_what_cannot_be_compressed_costs_itself_alone() -> None:
    refusing = program(
        "for _ in range(2):\n"
        " head = read.read(9); read.read(int.from_bytes(head[1:]))\n"
        " write.write((0).to_bytes(8) if _ == 0 else (2).to_bytes(8) + b'ok'); write.flush()"
    )
    async with compressing(refusing) as compressor:
        with pytest.raises(CompressionFailed):
            await compressor.best("gzip", DATA)
        assert await compressor.best("gzip", DATA) == b"ok"


def test_a_question_that_fails_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(coding: str, data: bytes) -> bytes:
        raise MemoryError

    monkeypatch.setattr("proxy.upstream.compressor_process.compress", fails)
    answers = BytesIO()
    serve(BytesIO(QUESTION.pack(0, 1) + b"x"), answers)
    assert answers.getvalue() == ANSWER.pack(0)


async def test_it_is_told_nothing_of_the_gates_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYGATE_LIMITS_STORAGE", "redis://:hush@localhost")
    # It reads what it is asked: to one that ends without, the question cannot be written.
    names = program(
        "read.read(int.from_bytes(read.read(9)[1:]))\n"
        "out = ' '.join(os.environ).encode(); write.write(len(out).to_bytes(8) + out)"
    )
    async with compressing(names) as compressor:
        told = (await compressor.best("gzip", DATA)).decode().split()
    assert "PATH" in told
    assert not [name for name in told if name.startswith("COMFYGATE")]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no niceness")
async def test_it_takes_what_nobody_else_wants() -> None:
    async with compressing(idle_s=60) as compressor:
        await compressor.best("gzip", DATA)
        (process,) = children()
        assert process.nice() == 19


async def test_it_loads_the_codecs_alone() -> None:
    code = (
        "import io, sys; from proxy.http.codecs import CODINGS; from proxy.upstream import compressor_process as c; "
        "c.serve(io.BytesIO(b''.join(c.QUESTION.pack(n, 1) + b'x' for n in range(3))), io.BytesIO()); print(*sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    loaded = (await process.communicate())[0].decode().split()
    assert "brotli" in loaded
    assert not {"aiohttp", "asyncio", "pydantic", "policy", "proxy.config"} & set(loaded)
