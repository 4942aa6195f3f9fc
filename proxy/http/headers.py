"""Which header fields cross the gate, in each direction. Pure; trusts nothing that the client or ComfyUI names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
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


def connection_named(headers: MultiMapping[str]) -> frozenset[str]:
    """The fields that `Connection` declares hop-by-hop (RFC 9110, 7.6.1)."""
    values = headers.getall("Connection", ())
    return frozenset(name.strip().lower() for value in values for name in value.split(",") if name.strip())


def to_upstream(headers: MultiMapping[str], *, with_body: bool) -> CIMultiDict[str]:
    """The end-to-end fields of a request that ComfyUI gets, each once: a repeated field is dropped whole but for lists."""
    dropped = connection_named(headers)
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        key = name.lower()
        known = _TO_UPSTREAM.get(key) or (_OF_STREAMED_BODY.get(key) if with_body else None)
        if known is None or key in dropped:
            continue
        if known not in kept:
            kept[known] = value
        elif key in _LISTS:
            kept[known] = f"{kept[known]}, {value}"  # RFC 9110, 5.3
        else:
            # Two programs could each take another one of them; named again, it stays out.
            del kept[known]
            dropped |= {key}
    return kept


def forwarded_values(headers: MultiMapping[str]) -> list[str]:
    """The values of all fields that may go to ComfyUI."""
    return [value for name, value in headers.items() if name.lower() in _TO_UPSTREAM]


def to_client(headers: MultiMapping[str]) -> CIMultiDict[str]:
    """The end-to-end fields of an answer, without what names the upstream or would act on the gate's origin."""
    dropped = connection_named(headers)
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        key = name.lower()
        if key in _NOT_TO_CLIENT or key in dropped or key.startswith("access-control-"):
            continue
        kept.add(name, value)
    return kept


def disposition(name: str) -> str:
    """`Content-Disposition` of a file with this upstream name, in the client's spelling."""
    name = unspell(name)
    if name.isascii() and name.isprintable() and not set(name) & set('"\\;'):
        return f'filename="{name}"'
    return f"filename*=UTF-8''{quote(name, safe='')}"


def respell_disposition(headers: CIMultiDict[str]) -> None:
    """ComfyUI names the file as it lies on its disk (server.py, view_image)."""
    found = _SPELLED_FILENAME.fullmatch(headers.get("Content-Disposition", ""))
    if found:
        headers["Content-Disposition"] = disposition(found[1])


def merge_vary(headers: CIMultiDict[str], names: Iterable[str]) -> None:
    """Adds to `Vary` what the answer depends on."""
    if "Vary" not in headers:
        headers["Vary"] = ", ".join(names)
        return
    present = [part.strip() for value in headers.getall("Vary", ()) for part in value.split(",") if part.strip()]
    lowered = {part.lower() for part in present}
    present += [name for name in names if name.lower() not in lowered]
    headers["Vary"] = ", ".join(present)
