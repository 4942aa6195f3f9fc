"""One part of a multipart upload: its head, read as ComfyUI would read it. Raises Violation(body-malformed) for what could be read in two ways."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from multidict import CIMultiDict

from policy.rules.uploads import FIELDS
from policy.violation import Reason, Violation
from proxy.http import hdrs
from proxy.http.content_disposition import filename_of, read_disposition

MAX_PART_HEADER_BYTES: Final = 8 * 1024
_NO_ENCODINGS: Final = frozenset({"binary", "8bit", "7bit"})


@dataclass(slots=True)
class Part:
    """Its head as it comes, and what of its content is not sent yet."""

    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    header_bytes: int = 0
    name: str = ""
    filename: str | None = None
    value: bytearray = field(default_factory=bytearray)
    is_open: bool = False
    """The file's head was judged and its bytes go on as they come."""

    def add_to_name(self, data: bytes) -> None:
        self._count(len(data))
        self.header_name += data

    def add_to_value(self, data: bytes) -> None:
        self._count(len(data))
        self.header_value += data

    def _count(self, amount: int) -> None:
        self.header_bytes += amount
        if self.header_bytes > MAX_PART_HEADER_BYTES:
            raise malformed(f"the headers of a part have at most {MAX_PART_HEADER_BYTES} bytes")

    def end_header(self) -> None:
        try:
            self.headers.add(self.header_name.decode("ascii"), self.header_value.decode("utf-8"))
        except UnicodeDecodeError:
            raise malformed("the headers of a part must be UTF-8") from None
        self.header_name.clear()
        self.header_value.clear()

    def end_head(self) -> None:
        """Reads the part's name, and the file's."""
        # RFC 2045, 6.2: these three change nothing, and RFC 7578, 4.7 has them left out. ComfyUI's parser would decode the others.
        encodings = {text.strip().lower() for text in self.headers.popall(hdrs.CONTENT_TRANSFER_ENCODING, ())}
        if encodings - _NO_ENCODINGS or hdrs.CONTENT_ENCODING in self.headers:
            raise malformed("parts must not be encoded")
        if len(self.headers.getall(hdrs.CONTENT_DISPOSITION, ())) != 1:
            raise malformed("each part needs one Content-Disposition")
        try:
            kind, parameters = read_disposition(self.headers[hdrs.CONTENT_DISPOSITION])
        except ValueError:
            raise malformed("each part needs a name") from None
        if kind != "form-data" or not parameters.get("name"):
            raise malformed("each part needs a name")
        self.name = parameters["name"]
        self.filename = filename_of(parameters)
        if self.filename is not None and self.name in FIELDS:
            self.filename = None  # clients that send every field as a file mean its text
        elif self.filename is None and any(key.startswith("filename") for key in parameters):
            raise malformed("the file's name cannot be read")


def malformed(rule: str) -> Violation:
    return Violation(Reason.BODY_MALFORMED, f"This upload cannot be read: {rule}.")
