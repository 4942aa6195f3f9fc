"""Validators of files that their tenant gets in its own words (policy/media): never those of the file as ComfyUI has it (RFC 9110, 8.8).

Whoever kept the file as ComfyUI has it, from before, must not be told that it is the same. So the ETag is another one, and a date says nothing.
"""

from __future__ import annotations

import re
from typing import Final

from multidict import CIMultiDict

from proxy.http import hdrs
from proxy.http.headers import RawFields

_OWN: Final = re.compile(r'(?:W/)?"([^",]*)-own"')
_DATES: Final = ("If-Modified-Since", "If-Unmodified-Since")
_LISTS: Final = ("If-None-Match", "If-Match")
_NOTHING: Final = '""'
"""No file of ComfyUI's has it."""


def own_etag(etag: str) -> str:
    """As its tenant is told; unchanged where it is none."""
    return f'{etag[:-1]}-own"' if etag.endswith('"') else etag


def own_fields(fields: RawFields) -> RawFields:
    """The head of ComfyUI's answer with the tenant's ETag."""
    return [
        (name, own_etag(value.decode("latin-1")).encode("latin-1") if name.lower() == b"etag" else value)
        for name, value in fields
    ]


def ask_comfyui(fields: CIMultiDict[str]) -> None:
    """Makes the client's conditions those that ComfyUI can judge, in place. A range of what the client does not have yet is none."""
    for name in _DATES:
        fields.popall(name, None)
    for name in _LISTS:
        asked = ", ".join(fields.popall(name, ()))
        own = "*" if asked.strip() == "*" else ", ".join(f'"{found}"' for found in _OWN.findall(asked))
        if own or (asked and name == "If-Match"):
            fields[name] = own or _NOTHING
    asked = "".join(fields.popall(hdrs.IF_RANGE, ()))
    if asked:
        found = _OWN.fullmatch(asked)
        if found is not None:
            fields[hdrs.IF_RANGE] = f'"{found[1]}"'
        else:
            fields.popall(hdrs.RANGE, None)
    fields[hdrs.ACCEPT_ENCODING] = "identity"  # the bytes themselves are read
