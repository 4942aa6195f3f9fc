"""What a client that follows a job is sent: server-sent events (WHATWG HTML, 9.2), as bytes."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from policy.document import read_upstream_json
from policy.rules.events import MAX_METADATA_BYTES, PREVIEW, PREVIEW_WITH_METADATA
from policy.v2.assets import Asset, output_to_client
from policy.v2.jobs import Status
from policy.v2.links import Links
from policy.v2.progress import Progress
from policy.values import value

EVENT_STREAM: Final = "text/event-stream"
COMMENT: Final = b":\n\n"
"""Nothing, for whoever waits for a sign of life."""
_PICTURE_TYPES: Final = {1: "image/jpeg", 2: "image/png"}
"""ComfyUI's numbers of them (server.py, send_image)."""


@value
class Preview:
    """prompt_id, node_id: None where ComfyUI did not say."""

    picture: bytes
    content_type: str
    prompt_id: str | None = None
    node_id: str | None = None


def status_event(status: Status, queue_position: int | None) -> bytes:
    """queue_position: of a job that waits."""
    shown: dict[str, Any] = {"status": status.value}
    return _event("status", shown if queue_position is None else shown | {"queue_position": queue_position})


def progress_event(progress: Progress) -> bytes:
    return _event("progress", progress.to_client())


def output_event(asset: Asset, links: Links, url_expires_at_s: float) -> bytes:
    return _event("output", output_to_client(asset, links, url_expires_at_s))


def preview_event(preview: Preview, node_id: str | None) -> bytes:
    """node_id: of the node that runs, where the preview does not say its own."""
    picture = base64.b64encode(preview.picture).decode()
    shown = {"node_id": preview.node_id or node_id, "content_type": preview.content_type, "data_base64": picture}
    return _event("preview", shown)


def read_preview(frame: bytes | memoryview) -> Preview | None:
    """None for a binary event of ComfyUI's that is no picture."""
    kind, number = frame[:4], int.from_bytes(frame[4:8], "big")
    if kind == PREVIEW:
        content_type = _PICTURE_TYPES.get(number)
        return None if content_type is None else Preview(bytes(frame[8:]), content_type)
    if kind != PREVIEW_WITH_METADATA or number > MAX_METADATA_BYTES:
        return None
    metadata = read_upstream_json(bytes(frame[8 : 8 + number]))
    if not isinstance(metadata, dict) or metadata.get("image_type") not in _PICTURE_TYPES.values():
        return None
    prompt_id, node_id = metadata.get("prompt_id"), metadata.get("display_node_id") or metadata.get("node_id")
    return Preview(
        bytes(frame[8 + number :]),
        metadata["image_type"],
        prompt_id if isinstance(prompt_id, str) else None,
        node_id if isinstance(node_id, str) else None,
    )


def _event(name: str, data: Any) -> bytes:
    """In ASCII: readers that end a line where Unicode does would lose what stands behind a U+2028 in a name."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))  # orjson writes no ASCII
    return f"event: {name}\ndata: {text}\n\n".encode("ascii")
