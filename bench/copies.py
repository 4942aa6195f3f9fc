"""One large result that is copied to a bucket: how much the memory of who copies it grows. The promise is less than 32 MiB for 1 GiB."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import psutil
from blake3 import blake3

from policy.copies import CopyState
from proxy.config.reader import check_config
from proxy.copies.opening import open_bucket
from proxy.copies.originals import Originals
from proxy.files.directories import Directories
from proxy.files.tenant_files import TenantFiles
from proxy.jobs.copy_requests import Copy
from proxy.jobs.registry import JobRegistry
from proxy.limits.heavy_work import HeavyWork
from proxy.upstream.client import Upstream
from tests.proxy.copies.s3 import S3Server, s3_server, storage

PROMISE_BYTES: Final = 32 * 1024**2
WHOLE_BYTES: Final = 1024**3
_NAME: Final = "large_00001_.bin"
_PIECE: Final = 1024**2


def make_file(folder: Path, size_bytes: int) -> str:
    """A result of alice's; its hash."""
    file = folder / "output" / "tenants" / "alice" / _NAME
    file.parent.mkdir(parents=True)
    digest = blake3()
    with file.open("wb") as opened:
        for _ in range(size_bytes // _PIECE):
            piece = os.urandom(_PIECE)
            opened.write(piece)
            digest.update(piece)
    return f"blake3:{digest.hexdigest()}"


async def copy_file(config: Path, folder: Path, size_bytes: int, digest: str) -> int:
    """By how many bytes this process grew at most."""
    bucket = open_bucket(check_config(tomllib.loads(config.read_text(encoding="utf-8")), config, environ={}))
    upstream = Upstream("http://127.0.0.1:1", 1.0)
    originals = Originals(TenantFiles(upstream, HeavyWork(), Directories(folder)), JobRegistry())
    process, stop = psutil.Process(), asyncio.Event()

    def of(size: int, hash_: str) -> Copy:
        about = ("a-copy", "alice", "a-job", "an-asset", CopyState.WAITING, "output", _NAME, "", hash_, size)
        return Copy(*about, object_key=f"alice/{size}")

    async def watch(before: int) -> int:
        most = before
        while not stop.is_set():
            most = max(most, process.memory_info().rss)
            await asyncio.sleep(0.01)
        return most - before

    await bucket.put("alice/first", _one(), 1, "image/png", "x.png")  # what is loaded once is no growth
    watching = asyncio.get_running_loop().create_task(watch(process.memory_info().rss))
    copy = of(size_bytes, digest)
    await bucket.put(copy.object_key, originals.read(copy), size_bytes, "application/octet-stream", _NAME)
    stop.set()
    await upstream.stop()
    return await watching


async def _one() -> AsyncIterator[bytes]:
    yield b"x"


async def measure(folder: Path, server: S3Server, size_bytes: int) -> int:
    """The same in a process of its own."""
    (folder / "config.toml").write_text(storage(server, folder), encoding="utf-8")
    digest = await asyncio.to_thread(make_file, folder / "comfyui", size_bytes)
    words = (str(folder / "config.toml"), str(folder / "comfyui"), str(size_bytes), digest)
    done = await asyncio.to_thread(
        subprocess.run, (sys.executable, "-m", "bench.copies", *words), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert next(iter(server.folder.rglob(str(size_bytes)))).stat().st_size == size_bytes
    return int(done.stdout)


def main() -> None:
    async def run() -> int:
        with tempfile.TemporaryDirectory(dir=Path(__file__).parents[1]) as name:
            async with s3_server(Path(name) / "s3") as server:
                return await measure(Path(name), server, WHOLE_BYTES)

    growth = asyncio.run(run())
    print(f"copying 1 GiB: the process grew by {growth / 1024**2:.1f} MiB (promise: {PROMISE_BYTES // 1024**2})")
    if growth >= PROMISE_BYTES:
        sys.exit(1)


if __name__ == "__main__":
    _config, _folder, _size, _digest = sys.argv[1:]
    print(asyncio.run(copy_file(Path(_config), Path(_folder), int(_size), _digest)))
