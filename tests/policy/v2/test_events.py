"""What a client that follows a job is sent, as bytes."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from policy.namespace import Folder
from policy.v2.assets import Asset
from policy.v2.events import (
    COMMENT,
    Preview,
    output_event,
    preview_event,
    progress_event,
    read_preview,
    status_event,
)
from policy.v2.jobs import Status
from policy.v2.links import Links
from policy.v2.progress import Progress

ASSET = Asset("id", "a\u2028b\u0085é.png", "image/png", 3, None, 0.0, folder=Folder.OUTPUT, path="a.png", kind="image")


def read(event: bytes) -> tuple[str, Any]:
    """As the SDKs read it: in lines, as `str.splitlines` knows them."""
    name, data, end = event.decode().splitlines()
    assert (name[:7], data[:6], end) == ("event: ", "data: ", "")
    assert event.endswith(b"\n\n")
    return name[7:], orjson.loads(data[6:])


def test_states() -> None:
    assert read(status_event(Status.QUEUED, 3)) == ("status", {"status": "queued", "queue_position": 3})
    assert read(status_event(Status.RUNNING, None)) == ("status", {"status": "running"})


def test_progress() -> None:
    name, data = read(progress_event(Progress(0.5, 1, 2)))
    assert (name, data["value"], data["nodes_done"]) == ("progress", 0.5, 1)


def test_an_output_is_in_ascii_whatever_its_name_holds() -> None:
    event = output_event(ASSET, Links("https://gate.example", "/p"), 60.0)
    assert event.isascii()
    name, data = read(event)
    assert name == "output"
    assert data["name"] == ASSET.file_path
    assert data["url"] == "https://gate.example/p/api/v2/assets/id/content"
    assert data["url_expires_at"] == "1970-01-01T00:01:00.000Z"


def test_a_comment_is_no_event() -> None:
    assert COMMENT == b":\n\n"


def test_previews() -> None:
    picture = b"\xff\xd8picture"
    preview = read_preview(b"\0\0\0\x01\0\0\0\x01" + picture)
    assert preview == Preview(picture, "image/jpeg")
    name, data = read(preview_event(preview, "7"))
    assert name == "preview"
    assert data == {
        "node_id": "7",
        "content_type": "image/jpeg",
        "data_base64": base64.b64encode(picture).decode(),
    }
    assert read_preview(memoryview(b"\0\0\0\x01\0\0\0\x02png")) == Preview(b"png", "image/png")


def with_metadata(metadata: Any, picture: bytes = b"jpeg") -> bytes:
    text = metadata if isinstance(metadata, bytes) else orjson.dumps(metadata)
    return b"\0\0\0\x04" + len(text).to_bytes(4, "big") + text + picture


def test_previews_with_metadata_say_of_which_node_they_are() -> None:
    frame = with_metadata({"node_id": "7.0", "display_node_id": "7", "prompt_id": "p", "image_type": "image/jpeg"})
    assert read_preview(frame) == Preview(b"jpeg", "image/jpeg", "p", "7")
    assert read(preview_event(Preview(b"", "image/png", "p", "7"), "8"))[1]["node_id"] == "7"
    assert read_preview(with_metadata({"node_id": 7, "image_type": "image/png"})) == Preview(b"jpeg", "image/png")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0\0\0\x01",
        b"\0\0\0\x01\0\0\0\x09gif",
        b"\0\0\0\x03\0\0\0\x01text",
        b"\0\0\0\x04\xff\xff\xff\xff{}",
        with_metadata(b"nonsense"),
        with_metadata([]),
        with_metadata({"image_type": "image/svg+xml"}),
    ],
)
def test_what_is_no_preview(frame: bytes) -> None:
    assert read_preview(frame) is None
