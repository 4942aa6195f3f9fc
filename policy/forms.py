"""Small forms, as pages send them: read strictly, and written anew in one spelling."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, urlencode

from policy.violation import Reason, Violation

MAX_FIELDS: Final = 16
FORM_TYPE: Final = "application/x-www-form-urlencoded"

_BOUNDARY: Final = re.compile(rb"--([!-~]{1,200})\r\n")
_NAME: Final = re.compile(r'(?i)content-disposition: *form-data; *name="([A-Za-z0-9_.-]{1,64})"')


def read_form(body: bytes) -> dict[str, str]:
    """The fields of a form (RFC 7578 multipart without files, or URL encoding), each once. Raises Violation(body-malformed)."""
    boundary = _BOUNDARY.match(body)
    fields = _read_parts(body, boundary[1]) if boundary else _read_pairs(body)
    form = dict(fields)
    if len(fields) > MAX_FIELDS or len(form) != len(fields):
        raise _malformed(f"at most {MAX_FIELDS} fields are accepted, each once")
    return form


def write_form(form: dict[str, str]) -> bytes:
    return urlencode(form).encode("ascii")


def _read_parts(body: bytes, boundary: bytes) -> list[tuple[str, str]]:
    delimiter = b"\r\n--" + boundary
    parts = (b"\r\n" + body).split(delimiter)
    if len(parts) < 2 or parts[0] or parts[-1].strip() != b"--":
        raise _malformed("its parts are not closed")
    return [_read_part(part) for part in parts[1:-1]]


def _read_part(part: bytes) -> tuple[str, str]:
    head, separator, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    names = [found[1] for line in _text(head).split("\r\n") if (found := _NAME.fullmatch(line))]
    if not separator or len(names) != 1 or not part.startswith(b"\r\n"):
        raise _malformed("each part has a name, and no file")
    return names[0], _text(value)


def _read_pairs(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise _malformed("it is neither a multipart nor a URL-encoded form") from None


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("its fields are UTF-8") from None


def _malformed(rule: str) -> Violation:
    return Violation(Reason.BODY_MALFORMED, f"This form cannot be read: {rule}.")
