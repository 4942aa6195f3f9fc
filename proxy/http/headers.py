"""Which header fields cross the gate, in each direction. Pure; trusts nothing that the client or ComfyUI names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from multidict import CIMultiDict, MultiMapping, istr

from policy.spelling import unspell

_SPELLED_FILENAME = re.compile(r'filename="(~=[^"]*)"')
# RFC 9110, 7.6.1, and what older programs use.
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# What a call may carry to ComfyUI. A list of the permitted, so that no credential, no forwarded address, no `Origin`
# (ComfyUI would answer 403 behind a tunnel) and no `comfy-user` gets there under any spelling.
_TO_UPSTREAM: Final = {
    name.lower(): istr(name)
    for name in (
        "Accept",
        "Accept-Encoding",
        "Accept-Language",
        "Comfy-Usage-Source",
        "If-Match",
        "If-Modified-Since",
        "If-None-Match",
        "If-Range",
        "If-Unmodified-Since",
        "Range",
        "Sec-Fetch-Dest",  # ComfyUI shows an SVG inline only when this says `image`
        "User-Agent",
    )
}
_CONNECTION: Final = istr("Connection")
_VARY: Final = istr("Vary")
_LISTS: Final = frozenset(
    {"accept", "accept-encoding", "accept-language", "if-match", "if-none-match", "content-encoding"}
)
_OF_STREAMED_BODY: Final = {name.lower(): istr(name) for name in ("Content-Encoding", "Content-Length", "Content-Type")}
_NOT_TO_CLIENT: Final = HOP_BY_HOP | {
    "date",
    "server",
    "set-cookie",
    "alt-svc",
    "strict-transport-security",
}


_SAID_BY_GATE: Final = frozenset(
    {
        "cache-control",
        "content-security-policy",
        "x-content-type-options",
        "x-request-id",
        "ratelimit",
        "ratelimit-policy",
    }
)
_NOTHING: Final[frozenset[str]] = frozenset()
_CONTENT_TYPE: Final = b"content-type"
_USUAL_LENGTH: Final = 256
"""SECURITY: longer values of `Connection` are read each time, so that nobody fills the memory with them (test_headers.py)."""
RawFields = Sequence[tuple[bytes, bytes]]
"""Names and values, as they came."""


class KnownFields(tuple[tuple[bytes, bytes], ...]):
    """Those of an answer like one that came before. derived: what was worked out of them."""

    derived: dict[Any, Any]

    def __new__(cls, fields: Iterable[tuple[bytes, bytes]]) -> KnownFields:
        made = super().__new__(cls, fields)
        made.derived = {}
        return made


def connection_named(headers: MultiMapping[str]) -> frozenset[str]:
    """The fields that `Connection` declares hop-by-hop (RFC 9110, 7.6.1)."""
    return named_by(tuple(headers.getall(_CONNECTION, ())))


def named_by(values: tuple[str, ...]) -> frozenset[str]:
    """The names that these values of `Connection` hold."""
    is_usual = sum(map(len, values)) <= _USUAL_LENGTH
    return _named_by(values) if is_usual else _named_by.__wrapped__(values)


@lru_cache(maxsize=64)
def _named_by(values: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name.strip().lower() for value in values for name in value.split(",") if name.strip())


def to_upstream(headers: MultiMapping[str], *, with_body: bool) -> CIMultiDict[str]:
    """The end-to-end fields of a request that ComfyUI gets, each once: a repeated field is dropped whole but for lists."""
    dropped = connection_named(headers)
    known_of = _known_with_body if with_body else _known
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        known = known_of(name)
        if known is None or (dropped and name.lower() in dropped):
            continue
        if known not in kept:
            kept[known] = value
        elif known.lower() in _LISTS:
            kept[known] = f"{kept[known]}, {value}"  # RFC 9110, 5.3
        else:
            # Two programs could each take another one of them; named again, it stays out.
            del kept[known]
            dropped |= {known.lower()}
    return kept


@lru_cache(maxsize=256)
def _known(name: str) -> istr | None:
    """The field as it goes to ComfyUI; None for one that does not."""
    return _TO_UPSTREAM.get(name.lower())


@lru_cache(maxsize=256)
def _known_with_body(name: str) -> istr | None:
    return _TO_UPSTREAM.get(name.lower()) or _OF_STREAMED_BODY.get(name.lower())


def forwarded_values(headers: MultiMapping[str]) -> list[str]:
    """The values of all fields that may go to ComfyUI."""
    return [value for name, value in headers.items() if _known(name) is not None]


def to_client(headers: MultiMapping[str]) -> CIMultiDict[str]:
    """The end-to-end fields of an answer, without what names the upstream or would act on the gate's origin."""
    dropped = connection_named(headers)
    return CIMultiDict(
        [
            (name, value)
            for name, value in headers.items()
            if _goes_to_client(name) and not (dropped and name.lower() in dropped)
        ]
    )


@lru_cache(maxsize=256)
def _goes_to_client(name: str) -> bool:
    return name.lower() not in _NOT_TO_CLIENT and not name.lower().startswith("access-control-")


def content_type_of(fields: RawFields) -> str:
    """Of ComfyUI's answer."""
    for name, value in fields:
        if len(name) == len(_CONTENT_TYPE) and name.lower() == _CONTENT_TYPE:
            return value.decode("utf-8", "surrogateescape")
    return "text/plain"


def from_upstream(
    fields: RawFields, left_out: frozenset[str] = _NOTHING
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """The end-to-end fields of ComfyUI's answer without those that the gate says itself, and the values of `Vary`.

    left_out: names of further fields, in lower case. Files are named as their client knows them: ComfyUI names them as they lie on its disk
    (server.py, view_image).
    """
    kept: list[tuple[str, str]] = []
    vary: tuple[str, ...] = ()
    dropped = _NOTHING
    for raw_name, raw_value in fields:
        name, key = _of_answer(raw_name)
        if not name:
            if key == "connection" and not dropped:
                dropped = _named_by_connection(fields)
        elif key not in left_out:
            value = raw_value.decode("utf-8", "surrogateescape")
            if key == "vary":
                vary += (value,)
            elif key == "content-disposition" and (found := _SPELLED_FILENAME.fullmatch(value)):
                kept.append((name, disposition(found[1])))
            else:
                kept.append((name, value))
    if dropped:
        kept = [field for field in kept if field[0].lower() not in dropped]
        vary = () if "vary" in dropped else vary
    return tuple(kept), vary


def _named_by_connection(fields: RawFields) -> frozenset[str]:
    return named_by(tuple(value.decode("latin-1") for name, value in fields if _of_answer(name)[1] == "connection"))


@lru_cache(maxsize=256)
def _of_answer(raw_name: bytes) -> tuple[str, str]:
    """A field's name as it goes to the client, empty where it does not, and in lower case."""
    name = raw_name.decode("utf-8", "surrogateescape")
    key = name.lower()
    return ("" if key in _SAID_BY_GATE or not _goes_to_client(name) else name), key


def disposition(name: str) -> str:
    """`Content-Disposition` of a file with this upstream name, in the client's spelling."""
    name = unspell(name)
    if name.isascii() and name.isprintable() and not set(name) & set('"\\;'):
        return f'filename="{name}"'
    return f"filename*=UTF-8''{quote(name, safe='')}"


def merge_vary(headers: CIMultiDict[str], names: Iterable[str]) -> None:
    """Adds to `Vary` what the answer depends on."""
    headers[_VARY] = merged_vary(tuple(headers.getall(_VARY, ())), tuple(names))


@lru_cache(maxsize=256)
def merged_vary(values: tuple[str, ...], names: tuple[str, ...]) -> str:
    """One value of `Vary` from several, and what the answer depends on besides."""
    present = [part.strip() for value in values for part in value.split(",") if part.strip()]
    lowered = {part.lower() for part in present}
    return ", ".join([*present, *(name for name in names if name.lower() not in lowered)])
