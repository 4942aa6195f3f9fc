"""Routes of files: uploads, masks and /view. The checks are ComfyUI's, lexical and per root; nothing more."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import mimetypes
import os
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from multidict import MultiDictProxy
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from standin.folders import Folders

ACTIVE_TYPES = frozenset(
    {
        "text/html",
        "text/html-sandboxed",
        "application/xhtml+xml",
        "text/javascript",
        "application/javascript",
        "application/x-javascript",
        "application/ecmascript",
        "text/css",
        "image/svg+xml",
        "application/xml",
        "text/xml",
        "message/rfc822",
    }
)
DEFAULT_QUALITY = 90
Form = MultiDictProxy[Any]
Save = Callable[[web.FileField, str], None]


def is_active(content_type: str) -> bool:
    """Whether a browser may run or render that type, so that it has to be sent as a download."""
    kind = content_type.split(";")[0].strip().lower()
    return kind in ACTIVE_TYPES or kind.endswith(("+xml", "/xml"))


def is_below(root: str, path: str) -> bool:
    return os.path.commonpath((root, path)) == root


@dataclass(frozen=True)
class Picture:
    body: bytes
    content_type: str


class FileRoutes:
    def __init__(self, folders: Folders, pool: Executor) -> None:
        self._folders = folders
        self._pool = pool

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/upload/image", self.upload_image),
            web.post("/upload/mask", self.upload_mask),
            web.get("/view", self.view),
        ]

    async def upload_image(self, request: web.Request) -> web.Response:
        form = await request.post()
        reply: web.Response = await self._in_pool(self._upload, form, _save_bytes)
        return reply

    async def upload_mask(self, request: web.Request) -> web.Response:
        form = await request.post()

        def save(image: web.FileField, path: str) -> None:
            # What is refused here is refused silently: the client gets 200 and a name.
            self._save_mask(image, path, json.JSONDecoder().decode(_text(form, "original_ref")))

        reply: web.Response = await self._in_pool(self._upload, form, save)
        return reply

    async def _in_pool(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def _upload(self, form: Form, save: Save) -> web.Response:
        image = form.get("image")
        kind = form.get("type", "input")
        root = self._folders.by_type(kind)
        if root is None:
            raise LookupError(f"upload type {kind!r}")  # an unbound variable upstream: 500
        if not image:
            return web.Response(status=400)
        if not isinstance(image, web.FileField):
            raise TypeError("image is a text field")
        subfolder = form.get("subfolder", "")
        folder = os.path.join(root, os.path.normpath(subfolder))
        path = os.path.abspath(os.path.join(folder, image.filename))
        if not is_below(root, path):
            return web.Response(status=400)
        os.makedirs(folder, exist_ok=True)
        name, path, is_duplicate = image.filename, path, False
        if form.get("overwrite") not in ("true", "1"):
            name, path, is_duplicate = _free_name(folder, name, path, image)
        if not is_duplicate:
            save(image, path)
        return web.json_response({"name": name, "subfolder": subfolder, "type": kind})

    def _save_mask(self, image: web.FileField, path: str, original: dict[str, Any]) -> None:
        name, root = self._folders.split_annotation(original["filename"])
        if not name or name.startswith("/") or ".." in name:
            return
        root = root or self._folders.by_type(original.get("type", "output"))
        if root is None:
            return
        folder = os.path.join(root, original.get("subfolder", ""))
        source = os.path.join(folder, name)
        if not is_below(root, os.path.abspath(folder)) or not os.path.isfile(source):
            return
        with Image.open(source) as opened, Image.open(image.file) as mask:
            texts = PngInfo()
            for key, value in getattr(opened, "text", {}).items():
                texts.add_text(key, value)
            merged = opened.convert("RGBA")
            merged.putalpha(mask.convert("RGBA").getchannel("A"))
            merged.save(path, compress_level=4, pnginfo=texts)

    async def view(self, request: web.Request) -> web.StreamResponse:
        reply: web.StreamResponse = await self._in_pool(self._view, request)
        return reply

    def _view(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if "filename" not in query or query["filename"].startswith("blake3:"):
            return web.Response(status=404)
        name, root = self._folders.split_annotation(query["filename"])
        if not name or name.startswith("/") or ".." in name:
            return web.Response(status=400)
        root = root or self._folders.by_type(query.get("type", "output"))
        if root is None:
            return web.Response(status=400)
        folder = root
        if "subfolder" in query:
            folder = os.path.join(root, query["subfolder"])
            if not is_below(root, os.path.abspath(folder)):
                return web.Response(status=403)
        name = os.path.basename(name)
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            return web.Response(status=404)
        made = _made_picture(path, query.get("preview"), query.get("channel"))
        if made is not None:
            headers = {"Content-Disposition": f'filename="{name}"'}
            return web.Response(body=made.body, content_type=made.content_type, headers=headers)
        return _raw(path, name, request.headers.get("Sec-Fetch-Dest"))


def _raw(path: str, name: str, destination: str | None) -> web.FileResponse:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": f'filename="{quoted}"'}
    if is_active(content_type):
        headers |= {"Vary": "Sec-Fetch-Dest", "Cache-Control": "no-store"}
        if content_type != "image/svg+xml" or destination != "image":
            content_type = "application/octet-stream"
            headers["Content-Disposition"] = f'attachment; filename="{quoted}"'
    return web.FileResponse(path, headers=headers | {"Content-Type": content_type})


def _made_picture(path: str, preview: str | None, channel: str | None) -> Picture | None:
    """What `preview` or `channel` ask for; None for the file as it is."""
    if preview is not None:
        return _preview(path, preview, channel or "")
    if channel == "rgb":
        with Image.open(path) as opened:
            return Picture(_encoded(opened.convert("RGB"), "PNG"), "image/png")
    if channel == "a":
        with Image.open(path) as opened:
            alpha = opened.getchannel("A") if opened.mode == "RGBA" else Image.new("L", opened.size, 255)
        image = Image.new("RGBA", alpha.size)
        image.putalpha(alpha)
        return Picture(_encoded(image, "PNG"), "image/png")
    return None


def _preview(path: str, preview: str, channel: str) -> Picture:
    parts = preview.split(";")
    kind = parts[0] if parts[0] in ("webp", "jpeg") and "a" not in channel else "webp"
    quality = int(parts[-1]) if parts[-1].isdigit() else DEFAULT_QUALITY
    with Image.open(path) as opened:
        image = opened.convert("RGB") if kind == "jpeg" or channel == "rgb" else opened
        return Picture(_encoded(image, kind, quality=quality), f"image/{kind}")


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _save_bytes(image: web.FileField, path: str) -> None:
    with open(path, "wb") as target:
        target.write(image.file.read())


def _free_name(folder: str, name: str, path: str, image: web.FileField) -> tuple[str, str, bool]:
    """The first `name`, `name (1)`, ... that is free, or that already has these very bytes."""
    stem, extension = os.path.splitext(name)
    attempt = 1
    while os.path.exists(path):
        if _digest(path) == hashlib.sha256(image.file.read()).digest():
            return name, path, True
        image.file.seek(0)
        name = f"{stem} ({attempt}){extension}"
        path = os.path.join(folder, name)
        attempt += 1
    return name, path, False


def _digest(path: str) -> bytes:
    with open(path, "rb") as source:
        return hashlib.sha256(source.read()).digest()


def _text(form: Form, name: str) -> str:
    value = form[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is a file")
    return value
