"""The texts in which ComfyUI writes a workflow: the tenant's own spelling of one, and which texts are one at all."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from policy.media.editing import ACROSS_BYTES, GONE, Judge
from policy.namespace import Folder, Namespace
from policy.salt import SALT

WORKFLOW_KEYS: Final = frozenset({"prompt", "workflow"})
"""Under which ComfyUI writes what it runs, and what the web UI shows (nodes.py, SaveImage; comfy_api/latest/_ui.py)."""
XMP: Final = "XML:com.adobe.xmp"
"""The key of an XMP packet, as PNG has it (third edition, 11.3.3.2)."""
PHOTOSHOP: Final = "Photoshop"
"""The key of its image resources, which have the texts of IPTC."""
_GOING_KEYS: Final = WORKFLOW_KEYS | {XMP.casefold(), PHOTOSHOP.casefold()}
_MARKS: Final = (b"class_type", b"widgets_values", b"last_node_id")
"""A workflow has one of them, as ComfyUI runs it or as the web UI saves it, however its JSON is wrapped in other texts."""
_COVERS: Final = frozenset({"metadata_block_picture", "coverart"})
"""Pictures in base64, in comments of sounds (RFC 7845, 5.2.1, and what was before it)."""
_PACKED: Final = b"base64,"
"""Before the base64 of a `data:` address (RFC 2397), as pictures stand in an SVG or in the JSON of a glTF."""
_END_OF_PACKED = re.compile(rb"[\"'()<>]")
_SHORTEST: Final = min(map(len, _MARKS)) * 4 // 3
_LONGEST_SIGN: Final = len("&#x10000a;")
_REFERENCE = re.compile(rb"&#x?[0-9A-Fa-f]{1,6};")
"""To a line's end within it (XML 1.0, 4.1)."""
_NO_DIGITS: Final = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))
# Where the graph stands in a document: of a safetensors file, of a glTF, of an SVG, and in the comment of common packs' films.
_AROUND_GRAPHS: Final = ("prompt", "__metadata__", "asset", "extras")

MAX_OWN_BYTES: Final = 4 * 1024**2
"""Of a file, of texts that are given in the tenant's own words."""
MAX_PARTS: Final = 250_000
"""Of a text that is read: each takes many times as much memory as in the file."""
_ANNOTATIONS: Final = tuple(f" [{folder}]" for folder in Folder)
_BEFORE_PARTS: Final = (b",", b"[", b"{")


class _Written(NamedTuple):
    """What the gate writes into workflows of a tenant."""

    names: Namespace
    maker: str

    def is_in(self, text: bytes) -> bool:
        """Whether anything of it may be."""
        return SALT.encode() in text or self.names.root.encode() in text

    def taken_from(self, text: str) -> str:
        """The tenant's own words. What another ComfyUI saves is in a folder of its own; what is read has its folder behind it, and keeps the path."""
        shown = self.names.without_root(text)
        if self.maker and shown is not text and not shown.endswith(_ANNOTATIONS):
            own = f"@{self.maker}"
            return "" if shown == own else shown.removeprefix(f"{own}/")
        return shown


def own_texts(names: Namespace, maker: str = "", max_bytes: int = MAX_OWN_BYTES) -> Judge:
    """Takes out of a workflow what the gate has written into it for ComfyUI: salts, and the folders of the tenant and of the ComfyUI.

    `workflow` is what the client sent, and stays. Where the client's spelling is the longer one even without spaces, the gate's stays.
    maker: which ComfyUI has run it, "" for the first. max_bytes: of all texts that it reads.
    """
    room, written = max_bytes, _Written(names, maker)

    def judge(key: str, text: bytes) -> bytes | None:
        nonlocal room
        if key.casefold() == "workflow" or not written.is_in(text):
            return None
        room -= len(text)
        if room < 0 or sum(map(text.count, _BEFORE_PARTS)) > MAX_PARTS:
            return None
        try:
            told = text.decode()
            document = json.loads(told)  # noqa: TID251 - as ComfyUI reads and writes it, so that nothing else changes
            return _fit(_own_document(document, written), told, len(text))
        except (ValueError, RecursionError):
            return None

    return judge


def workflow_goes(key: str, text: bytes) -> bytes | None:
    """A judge that takes out whatever ComfyUI may have written of a workflow: its keys, any JSON, as which it writes what clients send besides, and
    what is a workflow with words around it. XMP and IPTC, which wrap texts in ways of their own, go whole.
    """
    if key.casefold() in _GOING_KEYS or is_of_workflow(text):
        return GONE
    if key.casefold() in _COVERS and _is_shown_by(_unpacked(text)):
        return GONE
    if text.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        json.loads(text)  # noqa: TID251 - as ComfyUI wrote it
    except (ValueError, RecursionError):
        return None
    return GONE


def is_of_workflow(data: bytes) -> bool:
    """Whether a text or bytes around it show the words of a workflow, in UTF-8 or UTF-16, or within a `data:` address."""
    return _is_shown_by(data) or any(map(_is_shown_by, _pictures_in(data)))


def _is_shown_by(data: bytes) -> bool:
    told = data.translate(None, b"\0")
    return any(mark in told for mark in _MARKS)


def open_end(data: bytes) -> bytes:
    """Of the base64 of a `data:` address that goes on behind a piece of a file: its last groups of four, as if it began with them. Else nothing."""
    at = data.rfind(_PACKED)
    if at < 0 or _END_OF_PACKED.search(data, at) is not None:
        return b""
    packed = data[at + len(_PACKED) :]
    end = max(len(packed) - ACROSS_BYTES, 0)
    # No digit is cut from what it is written with.
    signs = (packed.rfind(sign, max(end - _LONGEST_SIGN, 0), end) for sign in (b"&", b"%"))
    end = min([end, *(place for place in signs if place >= 0)])
    digits = _digits(_plain(packed[:end]))
    return _PACKED + digits[-ACROSS_BYTES - len(digits) % 4 :] + packed[end:]


def _pictures_in(data: bytes) -> Iterator[bytes]:
    """One may follow the other without a quotation mark, as in a `srcset`."""
    texts = (_END_OF_PACKED.split(text, 1)[0] for text in data.split(_PACKED)[1:])
    return (_unpacked(_plain(text)) for text in texts if len(text) >= _SHORTEST)


def _plain(text: bytes) -> bytes:
    """Without what an address or XML writes digits and ends of lines with."""
    return unquote_to_bytes(_REFERENCE.sub(b"", text))


def _unpacked(base64: bytes) -> bytes:
    """Its whole groups of four (RFC 4648, 4)."""
    digits = _digits(base64)
    return binascii.a2b_base64(digits[: len(digits) // 4 * 4])


def _digits(base64: bytes) -> bytes:
    """Characters that are none are passed over."""
    return base64.translate(None, _NO_DIGITS)


def _own_document(document: Any, written: _Written) -> Any:
    if not isinstance(document, Mapping):
        return document
    if any(map(_is_node, document.values())):
        return {node_id: _own_node(node, written) for node_id, node in document.items()}
    return {
        key: _own_part(part, written) if key in _AROUND_GRAPHS else part  # parts of no graph stay as they are
        for key, part in document.items()
    }


def _own_part(part: Any, written: _Written) -> Any:
    if not isinstance(part, str) or not written.is_in(part.encode("utf-8", "surrogatepass")):
        return _own_document(part, written)
    try:
        document = json.loads(part)  # noqa: TID251 - as above
    except ValueError:
        return part
    return json.dumps(_own_document(document, written))


def _is_node(node: Any) -> bool:
    return (
        isinstance(node, Mapping) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
    )


def _own_node(node: Any, written: _Written) -> Any:
    """ComfyUI adds members of its own to a node while it runs, which stay as without a gate."""
    return {**node, "inputs": _own_input(node["inputs"], written)} if _is_node(node) else node


def _own_input(found: Any, written: _Written) -> Any:
    """Names of files stand at any depth (policy/path_texts.py, rewrite_texts)."""
    if isinstance(found, str):
        return written.taken_from(found)
    if isinstance(found, list):
        return [_own_input(item, written) for item in found]
    if isinstance(found, dict):
        return {written.taken_from(key): _own_input(item, written) for key, item in found.items() if key != SALT}
    return found


def _fit(document: Any, written: str, size: int) -> bytes | None:
    """As JSON in the style of what stood there, filled up with spaces, which JSON passes over (RFC 8259, 2); None where it does not fit.

    They stand before its last brace: the web UI looks for a text of an MP3 by its brace and the zero byte behind it.
    """
    indent = 2 if written.startswith("{\n") else None
    is_close = indent is None and '": ' not in written
    for separators in ((",", ":") if is_close else None, (",", ":")):
        text = json.dumps(document, indent=indent, separators=separators).encode()
        if len(text) <= size:
            return text[:-1].ljust(size - 1) + text[-1:]
        indent = None
    return None
