"""Who stands before the gate: a tenant that looks at every byte it is sent, and knows at once what is not its own."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.contract.driver import Answer, Comfy, Socket, unique

RED, GREEN, BLUE = (200, 10, 10), (10, 200, 10), (10, 10, 200)
COLORS = {"alice": RED, "mallory": GREEN, "direct": BLUE}
NUMBERS = {who: (r << 16) + (g << 8) + b for who, (r, g, b) in COLORS.items()}
# What differs between two equal answers: when, which request, what is left of one's own rate.
_PASSING = ("date", "x-request-id", "ratelimit", "ratelimit-policy")
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")


class Leak(AssertionError):
    """A tenant was sent something of another one's."""


@dataclass
class Tenant(Comfy):
    """A client with a credential.

    secrets: what no answer and no event may hold, but for what the client said in its request, or earlier (own_words).
    """

    who: str = ""
    secrets: set[bytes] = field(default_factory=set)
    own_words: set[bytes] = field(default_factory=set)
    foreign_colors: tuple[tuple[int, int, int], ...] = ()
    received_bytes: int = 0

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        options["headers"] = {"Accept-Encoding": "identity", **options.get("headers", {})}
        said = f"{path} {options.get('json')} {options.get('data')} {options.pop('said', '')}".encode()
        answer = await Comfy.call(self, method, path, **options)
        head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items()).encode()
        self.inspect(head + b"\n" + answer.body, said, f"{method} {path}")
        return answer

    def inspect(self, data: bytes, said: bytes = b"", where: str = "an event") -> None:
        self.received_bytes += len(data)
        for secret in self.secrets:
            if secret in data and secret not in said and not any(secret in word for word in self.own_words):
                raise Leak(f"{self.who} was sent {secret!r} in {where}: {data[:2000]!r}")
        picture = picture_in(data)
        if picture is not None and any(is_color(picture, color) for color in self.foreign_colors):
            raise Leak(f"{self.who} was sent a foreign picture in {where}")

    async def connect(self, sid: str, path: str = "/ws") -> Listener:
        url = f"{self.url}{path}?clientId={sid}" if sid else f"{self.url}{path}"
        connection = await self.session.ws_connect(url, max_msg_size=0, autoping=False)
        listener = Listener(connection, sid, tenant=self)
        first = await listener.read()
        assert isinstance(first, dict), "a socket begins with the status"
        listener.sid = first["data"]["sid"]
        return listener

    async def needs(self, class_type: str) -> None:
        """Skips the test where this ComfyUI has no such class: some come as files that an installation may lack."""
        if not (await self.get(f"/object_info/{class_type}")).json():
            pytest.skip(f"this ComfyUI has no {class_type}")

    async def photo(self, name: str, **fields: str) -> dict[str, str]:
        """Uploads a picture in the tenant's own colour."""
        answer = await self.upload(name, png(COLORS[self.who]), **fields)
        assert answer.status == 200, answer.text()
        stored: dict[str, str] = answer.json()
        return stored

    async def file(self, item: dict[str, str]) -> Answer:
        """A file as a client asks for it that read of it in the history or in an event."""
        return await self.view(item["filename"], subfolder=item["subfolder"], type=item["type"])


@dataclass
class Listener(Socket):
    """A WebSocket whose every frame is looked at."""

    tenant: Tenant = field(kw_only=True)

    async def read(self) -> dict[str, Any] | bytes:
        frame = await Socket.read(self)
        self.tenant.inspect(frame if isinstance(frame, bytes) else json.dumps(frame).encode())
        return frame

    async def ended(self, prompt_ids: Iterable[str]) -> None:
        """Reads until each of these jobs has said its last."""
        waiting = set(prompt_ids)
        while waiting:
            frame = await self.read()
            if isinstance(frame, dict) and frame["type"] == "executing" and frame["data"]["node"] is None:
                waiting.discard(frame["data"]["prompt_id"])


def picture_in(data: bytes) -> Image.Image | None:
    """The picture in an answer or a binary event, None when there is none."""
    starts = [at for magic in _MAGIC if (at := data.find(magic)) >= 0]
    if not starts:
        return None
    try:
        picture = Image.open(io.BytesIO(data[min(starts) :]))
        picture.load()
    except OSError:
        return None
    return picture


def is_color(picture: Image.Image, color: tuple[int, int, int]) -> bool:
    """Whether most of a picture is of this colour; JPEG and previews shift it a little."""
    pixel = picture.convert("RGB").resize((1, 1)).getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return all(abs(found - wanted) < 40 for found, wanted in zip(pixel, color, strict=True))


def png(color: tuple[int, int, int], size: tuple[int, int] = (24, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def seen(answer: Answer) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    """All that a client can compare of an answer: status, headers, body; without what differs between any two."""
    fields = tuple(
        sorted((name.lower(), value) for name, value in answer.headers.items() if name.lower() not in _PASSING)
    )
    request_id = answer.headers.get("X-Request-Id", "")
    return answer.status, fields, answer.body.replace(request_id.encode(), b"REQUEST") if request_id else answer.body


def told(answer: Answer) -> str:
    return f"{answer.status} {answer.body[:500]!r}"


async def version_of(url: str, session: aiohttp.ClientSession) -> tuple[int, ...]:
    async with session.get(f"{url}/system_stats") as reply:
        version = (await reply.json())["system"]["comfyui_version"]
    return tuple(int(part) for part in version.split(".")[:3])


__all__ = [
    "BLUE",
    "COLORS",
    "GREEN",
    "NUMBERS",
    "RED",
    "Leak",
    "Listener",
    "Tenant",
    "is_color",
    "picture_in",
    "png",
    "seen",
    "told",
    "unique",
    "version_of",
]
