"""Files that a real ComfyUI 0.33.0 made of one workflow, as the gate had sent it for the tenant alice (tests/data/media/sent.json)."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

from policy.media.editing import Edit, Editing, Judge, apply
from policy.media.formats import MediaEdits, find_edits, own_workflow, without_workflow
from policy.namespace import Namespace
from policy.principal import TenantId

FOLDER = Path(__file__).resolve().parents[2] / "data" / "media"
SENT: dict[str, Any] = json.loads((FOLDER / "sent.json").read_text(encoding="utf-8"))
REAL = {file.name: file.read_bytes() for file in sorted(FOLDER.iterdir()) if file.name != "sent.json"}
ALICE = Namespace(TenantId("alice"))
SALTED = (
    '{"1": {"inputs": {"filename_prefix": "tenants/alice/x", "comfygate_tenant": "alice"}, "class_type": "SaveImage"}}'
)
OWN = '{"1": {"inputs": {"filename_prefix": "x"}, "class_type": "SaveImage"}}'


def filled(text: str, size: int) -> bytes:
    """A JSON text of so many bytes."""
    return text[:-1].encode().ljust(size - 1) + text[-1:].encode()


FILLED = filled(OWN, len(SALTED))


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def box(kind: bytes, *data: bytes) -> bytes:
    """Of an MP4."""
    body = b"".join(data)
    return (8 + len(body)).to_bytes(4, "big") + kind + body


def element(kind: bytes, *data: bytes) -> bytes:
    """Of a Matroska."""
    body = b"".join(data)
    return kind + (len(body) | 1 << 56).to_bytes(8, "big") + body


def read_from(data: bytes, media: MediaEdits) -> list[Edit]:
    return find_edits(media, lambda offset, size: data[offset : offset + size])


def own(data: bytes) -> bytes:
    return apply(data, read_from(data, own_workflow(len(data), ALICE)))


def stripped(data: bytes) -> bytes:
    return apply(data, read_from(data, without_workflow(len(data))))


def texts_of(data: bytes) -> dict[str, bytes]:
    """The texts that a reader finds, by their keys in small letters."""
    found: dict[str, bytes] = {}

    def note(key: str, text: bytes) -> None:
        found[key.casefold()] = text

    media = MediaEdits(Editing(note, len(data)))
    read_from(data, media)
    assert media.is_understood
    return found


def workflows_of(data: bytes) -> dict[str, Any]:
    """`prompt` and `workflow`, read; an SVG has both in one."""
    texts = texts_of(data)
    if "" in texts:
        found: dict[str, Any] = json.loads(texts[""])
        return found
    return {key: json.loads(texts[key]) for key in ("prompt", "workflow") if key in texts}


def own_prompt(prompt: Any) -> Any:
    """What alice had sent, by hand."""
    return {
        node_id: node
        | {
            "inputs": {
                name: value.removeprefix("tenants/alice/").removeprefix("~=")
                if isinstance(value, str) and value.startswith("tenants/alice/")
                else value
                for name, value in node["inputs"].items()
                if name != "comfygate_tenant"
            }
        }
        for node_id, node in prompt.items()
    }


def picture(kind: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(buffer, kind, **more)
    return buffer.getvalue()


def judged(judge: Judge, data: bytes) -> tuple[bytes, bool]:
    """The file, and whether it was understood."""
    media = MediaEdits(Editing(judge, len(data)))
    return apply(data, read_from(data, media)), media.is_understood


def stripping(data: bytes) -> tuple[bytes, bool]:
    """The file without its workflow, and whether it is said to have none."""
    media = without_workflow(len(data))
    return apply(data, read_from(data, media)), media.is_understood


def is_understood(data: bytes) -> bool:
    media = own_workflow(len(data), ALICE)
    read_from(data, media)
    return media.is_understood
