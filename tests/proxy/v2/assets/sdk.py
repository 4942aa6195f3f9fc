"""What tests of assets send: uploads as Comfy-Org's SDKs write them, byte for byte, and gates with and without ComfyUI's folders."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from standin import StandIn
from tests.contract.driver import png
from tests.harness import Running, running_gate

BOUNDARY = "sdk-boundary"
ASSETS = "/api/v2/assets"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def hash_of(data: bytes) -> str:
    return f"blake3:{blake3(data).hexdigest()}"


def picture() -> bytes:
    """Of bytes that no other one has: noise in a text chunk would do, and so does what follows the picture."""
    return png() + secrets.token_bytes(16)


def field(name: str, text: str) -> bytes:
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()


def file_part(filename: str, data: bytes, name: str = "file") -> bytes:
    """The file name stands there raw, quotes too: as the SDK for Python writes it."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
    return f"{head}Content-Type: image/png\r\n\r\n".encode() + data + b"\r\n"


def form(
    data: bytes,
    file_path: str | None = "photo.png",
    *,
    filename: str = "photo.png",
    more: Iterable[tuple[str, str]] = (),
) -> bytes:
    """In the order of the SDKs: what is said of a file, and then the file."""
    fields = [("content_type", "image/png")]
    if file_path is not None:
        fields.append(("file_path", file_path))
    parts = [field(name, text) for name, text in (*fields, *more)]
    return b"".join(parts) + file_part(filename, data) + f"--{BOUNDARY}--\r\n".encode()


@dataclass
class Answer:
    status: int
    body: bytes
    headers: Any

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        code: str = self.json()["error"]["code"]
        return code


def _fields(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): text for name, text in headers.items()}


@dataclass
class Client:
    """One tenant's."""

    gate: Running
    who: str

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        async with self.gate.call(method, path, self.who, **more) as response:
            return Answer(response.status, await response.read(), response.headers.copy())

    async def post(self, body: bytes, **headers: str) -> Answer:
        return await self.ask("POST", ASSETS, data=io.BytesIO(body), headers=FORM | _fields(headers))

    async def upload(self, data: bytes, file_path: str | None = "photo.png", **more: Any) -> Answer:
        fields = [(name, str(text)) for name, text in more.items()]
        return await self.post(form(data, file_path, more=fields))

    async def stored(self, data: bytes, file_path: str = "photo.png", **more: Any) -> Any:
        """The new asset."""
        answer = await self.upload(data, file_path, **more)
        assert answer.status == 201, answer.body
        return answer.json()

    async def from_hash(self, digest: str, **more: Any) -> Answer:
        return await self.ask("POST", f"{ASSETS}/from-hash", json={"hash": digest, **more})

    async def get(self, asset_id: str) -> Answer:
        return await self.ask("GET", f"{ASSETS}/{asset_id}")

    async def has(self, digest: str) -> int:
        return (await self.ask("HEAD", f"{ASSETS}/by-hash/{digest}")).status

    async def content(self, asset_id: str, method: str = "GET", **headers: str) -> Answer:
        return await self.ask(method, f"{ASSETS}/{asset_id}/content", headers=_fields(headers))

    async def delete(self, asset_id: str) -> Answer:
        return await self.ask("DELETE", f"{ASSETS}/{asset_id}")


@dataclass
class Standing:
    """A gate before the stand-in, or before a real ComfyUI. directory: ComfyUI's base folder, whether the gate sees it or not; None of a real one."""

    gate: Running
    directory: Path | None
    comfy: StandIn | None

    @property
    def alice(self) -> Client:
        return Client(self.gate, "alice")

    @property
    def mallory(self) -> Client:
        return Client(self.gate, "mallory")

    def files(self, tenant: str = "alice", folder: str = "input") -> list[Path]:
        """That lie in a tenant's part of one of ComfyUI's folders."""
        assert self.directory is not None, "of the stand-in"
        root = self.directory / folder / "tenants" / tenant
        return sorted(path for path in root.rglob("*") if path.is_file())


@asynccontextmanager
async def standing(folder: Path, *, is_seen: bool, **options: Any) -> AsyncIterator[Standing]:
    """is_seen: whether the gate sees ComfyUI's folders."""
    folder.mkdir(parents=True, exist_ok=True)
    comfy = StandIn(folder / "comfyui", frontend=False)
    await comfy.start()
    try:
        more = f'directory = "{folder / "comfyui"}"' if is_seen else ""
        async with running_gate(folder, comfy.url, upstream_more=more, **options) as gate:
            yield Standing(gate, folder / "comfyui", comfy)
    finally:
        await comfy.stop()
