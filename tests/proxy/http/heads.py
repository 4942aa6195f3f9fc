"""Heads of requests, and how one is read."""

from __future__ import annotations

from typing import cast

from proxy.http.connection import Connection
from proxy.http.request import Request
from proxy.http.request_reader import RequestReader
from tests.proxy.http.requests import RecordingConnection

MAX_HEAD_BYTES = 16 * 1024


def lines(*each: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*each, "")).encode("utf-8", "surrogateescape")


def read(data: bytes, reader: RequestReader | None = None) -> Request:
    found = read_some(data, reader or RequestReader(MAX_HEAD_BYTES))
    assert found is not None
    request, end = found
    assert end == len(data)
    return request


def read_some(data: bytes, reader: RequestReader, looked_at: int = 0) -> tuple[Request, int] | None:
    return reader.read_head(data, looked_at, cast(Connection, RecordingConnection()))


CHUNKED = lines("POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked")
