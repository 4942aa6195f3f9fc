"""What went over one connection, read afterwards: HTTP/1.1 requests with the answers that they got, and the frames of event streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

_NO_BODY = (204, 304)
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Message:
    """first: the first line, without its end. is_whole: whether it came to its end."""

    first: str
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool


@dataclass(frozen=True)
class Exchange:
    method: str
    target: str
    request_headers: Mapping[str, str]
    request_body: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def json(self) -> Any:
        return orjson.loads(self.body)

    def __str__(self) -> str:
        return f"{self.method} {self.target} -> {self.status} {self.body[:2000]!r}"


@dataclass(frozen=True)
class Frame:
    event: str
    data: str


def exchanges_of(sent: bytes, received: bytes) -> list[Exchange]:
    """Of one connection, in order; a request without an answer is none. Interim answers are left out."""
    requests = list(_messages(sent, lambda number, first: False, is_open_ended=False))
    methods = [request.first.split(" ")[0] for request in requests]
    answers = list(_messages(received, lambda number, first: _is_bodiless(methods, number, first), is_open_ended=True))
    finals = [answer for answer in answers if _status(answer.first) // 100 != 1]
    return [_exchange(request, answer) for request, answer in zip(requests, finals, strict=False)]


def _exchange(request: Message, answer: Message) -> Exchange:
    method, target, _ = request.first.split(" ")
    status = _status(answer.first)
    return Exchange(method, target, request.headers, request.body, status, answer.headers, answer.body, answer.is_whole)


def _is_bodiless(methods: list[str], number: int, first: str) -> bool:
    status = _status(first)
    return status // 100 == 1 or status in _NO_BODY or (number < len(methods) and methods[number] == "HEAD")


def _status(first: str) -> int:
    return int(first.split(" ")[1])


def _messages(data: bytes, is_bodiless: Callable[[int, str], bool], *, is_open_ended: bool) -> Iterator[Message]:
    """is_open_ended: a message without a length goes to the end of the connection."""
    number = 0
    while _HEAD_END in data:
        head, _, data = data.partition(_HEAD_END)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if is_bodiless(number, first):
            body, data, is_whole = b"", data, True
        elif headers.get("transfer-encoding") == "chunked":
            body, data, is_whole = _chunks(data)
        elif "content-length" in headers or not is_open_ended:
            length = int(headers.get("content-length", "0"))
            body, data, is_whole = data[:length], data[length:], len(data) >= length
        else:
            body, data, is_whole = data, b"", True
        if not first.split(" ")[1].startswith("1"):
            number += 1
        yield Message(first, headers, body, is_whole)


def _chunks(data: bytes) -> tuple[bytes, bytes, bool]:
    """The body, what follows it, whether the last chunk came."""
    body = b""
    while b"\r\n" in data:
        line, _, rest = data.partition(b"\r\n")
        length = int(line.partition(b";")[0], 16)
        body += rest[:length]
        if length == 0:
            return body, rest[2:], True
        if len(rest) < length + 2:
            break
        data = rest[length + 2 :]
    return body, b"", False


def frames_of(body: bytes) -> list[Frame]:
    """The events of a stream as far as they came to their end; comments are left out."""
    frames = []
    text = body.decode().replace("\r\n", "\n")
    for block in text.split("\n\n")[:-1]:
        fields = [line.partition(":") for line in block.split("\n") if not line.startswith(":")]
        event = next((value.removeprefix(" ") for name, _, value in fields if name == "event"), "message")
        data = [value.removeprefix(" ") for name, _, value in fields if name == "data"]
        if data:
            frames.append(Frame(event, "\n".join(data)))
    return frames
