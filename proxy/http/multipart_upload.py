"""Rewrites a multipart upload while it streams: every part is read, judged by an UploadSession, and encoded anew. Memory stays flat.

ComfyUI takes the fields in any order, so the file goes first and what the gate says of it (one subfolder, the type) last: whatever the
client sent after the file is judged before the upstream request is whole, and a refusal breaks it off unfinished, so that nothing is stored.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Final, Protocol
from urllib.parse import quote

from policy import pictures
from policy.principal import Principal
from policy.rules.uploads import FILE_FIELD, MAX_FIELD_BYTES
from proxy.http import hdrs
from proxy.http.multipart_part import Part, malformed
from proxy.http.multipart_reader import MultipartReader
from proxy.http.request import Request
from proxy.http.request_body import BodyStream

HEAD_BYTES: Final = pictures.HEAD_BYTES
"""What the judge of a file's type gets to see of it."""
MAX_BOUNDARY_BYTES: Final = 200
_BOUNDARY: Final = re.compile(r';[ \t]*boundary=(?:"([^"\\]*)"|([^\s";,]*))(?=[ \t]*(?:;|$))', re.IGNORECASE)
_SMALL_BYTES: Final = 16 * 1024
_SPEND_BYTES: Final = 1024 * 1024

Spend = Callable[[Principal, int], Awaitable[None]]


class Session(Protocol):
    """Judges one upload, part by part. Every method raises Violation; nothing may be sent after that."""

    def accept_field(self, name: str, text: str, /) -> None: ...

    def accept_file(self, name: str, filename: str, head: bytes) -> str:
        """The name to send it under. head: its first HEAD_BYTES."""
        ...

    @property
    def keeps_name(self) -> bool: ...

    def set_apart(self, token: str) -> str: ...

    def fields_to_send(self) -> tuple[tuple[str, str], ...]: ...


class Plan(Protocol):
    """What may be uploaded. is_mask: put on a picture that ComfyUI has."""

    @property
    def is_mask(self) -> bool: ...

    def begin(self) -> Session: ...


class Names(Protocol):
    """What is known of a tenant's uploads (proxy/files/upload_names.py)."""

    def token(self, name: str, size_bytes: int, *, is_mask: bool) -> str | None: ...
    def stored(self, sent: str, told: str, size_bytes: int, *, is_mask: bool) -> None: ...


class UploadStream:
    """The body that ComfyUI gets. Raises what its source does, Violation and LimitExceeded."""

    def __init__(
        self,
        request: Request,
        source: BodyStream,
        plan: Plan,
        principal: Principal,
        spend: Spend,
        names: Names,
    ) -> None:
        """spend: pays for what came. before_fields: awaited when all of the client's came, before the fields behind it are made. before_end: before ComfyUI
        gets them, and with them the end of it.

        on_file: told of the file's bytes as they go on.
        """
        self._source = source
        self.session = plan.begin()
        self._principal = principal
        self._spend = spend
        self._names = names
        self._is_mask = plan.is_mask
        self._declared_bytes = source.max_bytes if request.content_length is None else request.content_length
        self._sent_name = ""
        self.before_fields: Callable[[], Awaitable[None]] | None = None
        self.before_end: Callable[[], Awaitable[None]] | None = None
        self.on_file: Callable[[bytes], object] = _pass_over
        self._boundary = f"comfygate-{secrets.token_hex(16)}"
        self._out: list[bytes] = []
        self._part: Part | None = None
        self._unspent = 0
        self._reader = MultipartReader(boundary_of(request), self)

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self._boundary}"

    @property
    def received_bytes(self) -> int:
        return self._source.received_bytes

    def stored(self, answer: Any) -> None:
        """ComfyUI took it, and answered this."""
        told = answer.get("name") if isinstance(answer, dict) else None
        if isinstance(told, str):
            self._names.stored(self._sent_name, told, self.received_bytes, is_mask=self._is_mask)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._source:
            self._unspent += len(chunk)
            if self._unspent >= _SPEND_BYTES:
                await self._pay()
            self._reader.feed(chunk)
            if self._out:
                out, self._out = self._out, []
                for piece in out if len(out) == 1 else _joined(out):
                    yield piece
        await self._pay()
        if self.before_fields is not None:
            await self.before_fields()
        last = b"".join(self._out) + self._last()
        if self.before_end is not None:
            await self.before_end()
        yield last

    async def _pay(self) -> None:
        amount, self._unspent = self._unspent, 0
        await self._spend(self._principal, amount)

    def _last(self) -> bytes:
        if not self._reader.is_ended:
            raise malformed("the closing boundary is missing")
        return end_fields(self._boundary, self.session.fields_to_send())

    # What the reader calls.

    def part_begun(self, part: Part) -> None:
        self._part = part

    def part_data(self, data: bytes) -> None:
        part = self._part
        assert part is not None, "part_begun() comes first"
        if part.is_open:
            self.on_file(data)
            self._out.append(data)
            return
        part.value += data
        if part.filename is not None:
            if len(part.value) >= HEAD_BYTES:
                self._open_file(part)
        elif len(part.value) > MAX_FIELD_BYTES:
            raise malformed(f"a field has at most {MAX_FIELD_BYTES} bytes")

    def part_ended(self) -> None:
        part = self._part
        assert part is not None, "part_begun() comes first"
        if part.filename is not None:
            if not part.is_open:
                self._open_file(part)
            self._out.append(b"\r\n")
            return
        try:
            self.session.accept_field(part.name, part.value.decode("utf-8"))
        except UnicodeDecodeError:
            raise malformed("fields must be UTF-8") from None

    def _open_file(self, part: Part) -> None:
        assert part.filename is not None, "only file parts are opened"
        name = self.session.accept_file(part.name, part.filename, bytes(part.value[:HEAD_BYTES]))
        if not self.session.keeps_name:
            token = self._names.token(name, self._declared_bytes, is_mask=self._is_mask)
            name = name if token is None else self.session.set_apart(token)
        self._sent_name = name
        self._out.append(begin_file(self._boundary, name))
        beginning = bytes(part.value)
        self.on_file(beginning)
        self._out.append(beginning)
        part.value.clear()
        part.is_open = True


def begin_file(boundary: str, name: str) -> bytes:
    """What stands before the bytes of a file, as ComfyUI's uploads have it."""
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{FILE_FIELD}"; {_filename_parameter(name)}\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()


def end_fields(boundary: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """The fields behind the file, and the end of the body."""
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields
    )
    return ("".join(parts) + f"--{boundary}--\r\n").encode()


def _pass_over(data: bytes) -> None:
    pass


def _joined(pieces: list[bytes]) -> Iterator[bytes]:
    """Small ones together, since each is a call of the system; large ones as they are."""
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) < _SMALL_BYTES:
            small.append(piece)
            continue
        if small:
            yield b"".join(small)
            small = []
        yield piece
    if small:
        yield b"".join(small)


def _filename_parameter(name: str) -> str:
    simple = name.isascii() and not set(name) & set('"\\%;\r\n')
    return f'filename="{name}"' if simple else f"filename*=UTF-8''{quote(name, safe='')}"


def is_form(request: Request) -> bool:
    """Whether its body is said to be a multipart form."""
    return request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip(" \t").lower() == "multipart/form-data"


def boundary_of(request: Request) -> bytes:
    """The boundary (RFC 2046, 5.1.1); a program could read a field that names two of them in two ways."""
    kind, _, parameters = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")
    found = _BOUNDARY.findall(f";{parameters}")
    if kind.strip().lower() != "multipart/form-data" or len(found) != 1:
        raise malformed("send multipart/form-data with a boundary")
    boundary = "".join(found[0]).encode("ascii", "replace")
    if not 1 <= len(boundary) <= MAX_BOUNDARY_BYTES:
        raise malformed("send multipart/form-data with a boundary")
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() not in ("", "identity"):
        raise malformed("send uploads without Content-Encoding")
    return boundary
