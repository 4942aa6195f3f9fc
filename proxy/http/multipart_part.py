"""One part of a multipart upload: its head, read as ComfyUI would read it. Raises Violation(body-malformed) for what could be read in two ways."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from multidict import CIMultiDict

from policy.rules.uploads import FIELDS
from policy.violation import Reason, Violation
from proxy.http import hdrs
from proxy.http.content_disposition import filename_of, read_disposition, read_raw_filename

MAX_PART_HEADER_BYTES: Final = 8 * 1024
_NO_ENCODINGS: Final = frozenset({"binary", "8bit", "7bit"})


class Part:
    """name, filename: as its head says. value: what of its content is not sent yet. Raises Violation for a head that could be read in two ways.

    texts: names of parts that are no files, whatever their heads say.
    """

    __slots__ = ("filename", "is_open", "name", "value")

    def __init__(self, headers: CIMultiDict[str], texts: Collection[str] = FIELDS) -> None:
        self.value = bytearray()
        self.is_open = False
        """The file's head was judged and its bytes go on as they come."""
        # RFC 2045, 6.2: these three change nothing, and RFC 7578, 4.7 has them left out. ComfyUI's parser would decode the others.
        encodings = {text.strip().lower() for text in headers.popall(hdrs.CONTENT_TRANSFER_ENCODING, ())}
        if encodings - _NO_ENCODINGS or hdrs.CONTENT_ENCODING in headers:
            raise malformed("parts must not be encoded")
        if len(headers.getall(hdrs.CONTENT_DISPOSITION, ())) != 1:
            raise malformed("each part needs one Content-Disposition")
        kind, parameters = _read(headers[hdrs.CONTENT_DISPOSITION])
        if kind != "form-data" or not parameters.get("name"):
            raise malformed("each part needs a name")
        self.name: str = parameters["name"]
        self.filename: str | None = filename_of(parameters)
        if self.filename is not None and self.name in texts:
            self.filename = None  # clients that send every field as a file mean its text
        elif self.filename is None and any(key.startswith("filename") for key in parameters):
            raise malformed("the file's name cannot be read")


def _read(disposition: str) -> tuple[str, dict[str, str]]:
    try:
        return read_disposition(disposition)
    except ValueError:
        raw = read_raw_filename(disposition)
        if raw is None:
            raise malformed("each part needs a name") from None
        return "form-data", {"name": "file", "filename": raw}


def malformed(rule: str) -> Violation:
    return Violation(Reason.BODY_MALFORMED, f"This upload cannot be read: {rule}.")
