"""Answers of custom nodes: nothing of the server's disk, nothing of a neighbour's, and everything else."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from policy.call import UpstreamReply
from policy.namespace import Namespace
from policy.principal import TenantId
from policy.reply_texts import clean_reply, is_read
from policy.rules.results import MAX_DEPTH, MAX_MESSAGE_LENGTH

NAMES = Namespace(TenantId("alice"))


def cleaned(value: Any) -> Any:
    reply = clean_reply(UpstreamReply(200, value, orjson.dumps(value)), NAMES, "pack")
    assert reply.content_type == "application/json"
    assert isinstance(reply.body, bytes)
    return orjson.loads(reply.body)


def cleaned_text(text: str | bytes) -> Any:
    body = text if isinstance(text, bytes) else text.encode()
    return clean_reply(UpstreamReply(200, None, body, "text/plain"), NAMES, "pack").body


@pytest.mark.parametrize(
    "value",
    [
        ["style.safetensors", "sub/style.safetensors", "sub\\style.safetensors"],
        {"file": "a.safetensors", "modified": 1.5, "has": None, "is": True},
        {"imageLocal": "/pack/api/loras/img?file=a.safetensors", "view": "/view?filename=a", "api": "/api/pack/x/y"},
        {"url": "https://example.com/a/b/c", "prompt": "a cat and/or a dog, 1/2"},
        {"tenants": 3, "of tenants": "tenants"},
        "/pack",
        [],
        0,
    ],
)
def test_what_harms_nobody_is_kept(value: Any) -> None:
    assert cleaned(value) == value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"path": "/srv/comfy/models/loras/a.safetensors"}, {"path": "a.safetensors"}),
        ({"path": "C:\\comfy\\models\\a.safetensors"}, {"path": "a.safetensors"}),
        ({"/srv/comfy/models": 1}, {"models": 1}),
        (
            {"error": "[Errno 2] No such file: '/srv/comfy/models/a b.txt'"},
            {"error": "[Errno 2] No such file: 'a b.txt'"},
        ),
        (["see /packs/other/file"], ["see file"]),
        (["/packed/other/file"], ["file"]),
        (["/srv/comfy/output/tenants/alice/a.png", "tenants/alice/b/c.png"], ["a.png", "b/c.png"]),
    ],
)
def test_a_path_of_the_server_is_its_last_part(value: Any, shown: Any) -> None:
    assert cleaned(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (["a.png", "tenants/bob/b.png", "/srv/comfy/input/tenants/bob/c.png"], ["a.png"]),
        ({"a": 1, "b": "TENANTS\\bob\\b.png", "tenants/bob/x": 2}, {"a": 1}),
        ({"a": ["/srv/tenants//bob/b.png and tenants/alice/c.png"]}, {"a": []}),
        ("tenants/bob/b.png", None),
        ("tenants/alicex/b.png", None),
    ],
)
def test_what_names_a_neighbours_file_is_left_out(value: Any, shown: Any) -> None:
    assert cleaned(value) == shown


@pytest.mark.parametrize(
    "address",
    [
        "/view?filename=b.png&subfolder=tenants%2Fbob&type=output",
        "/api/view?filename=b.png&subfolder=TENANTS%5cbob",
        "/pack/view/input%2Ftenants%2Fbob%2Fb.png",
        "https://host/x?path=tenants%252Fbob",
    ],
)
def test_an_address_that_names_a_neighbours_file_is_left_out(address: str) -> None:
    assert cleaned([address, {"url": address, "a": 1}]) == [{"a": 1}]
    mine = address.replace("bob", "alice")
    assert cleaned([mine]) == [mine]


@pytest.mark.parametrize("folder", ["tenants/bob", "/srv/comfy/output/tenants/bob/x", "tenants\\bob"])
def test_what_stands_beside_a_neighbours_folder_is_left_out(folder: str) -> None:
    assert cleaned([{"filename": "b.png", "subfolder": folder, "size": 3}]) == [{"size": 3}]
    mine = {"filename": "a.png", "subfolder": "tenants/alice/x"}
    assert cleaned({"files": [mine], "folder": folder}) == {"files": [{"filename": "a.png", "subfolder": "x"}]}


def test_what_is_too_deep_is_left_out() -> None:
    value: Any = "/srv/comfy/a"
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    assert b"srv" not in orjson.dumps(cleaned(value))


def test_a_text_is_cleaned_line_by_line() -> None:
    assert cleaned_text("one\n/srv/comfy/models/two\ntenants/bob/b.png\nthree") == b"one\ntwo\nthree"


def test_bytes_that_are_no_text_pass() -> None:
    assert cleaned_text(b"\x89PNG\xff") == b"\x89PNG\xff"


def test_a_long_text_is_cleaned_and_a_long_line_with_paths_is_left_out() -> None:
    """Looking for paths takes time that everybody waits for."""
    lines = ["/srv/comfy/a"] * (MAX_MESSAGE_LENGTH // 10)
    assert cleaned({"notes": "\n".join(lines)}) == {"notes": "\n".join(["a"] * len(lines))}
    assert cleaned({"notes": "/srv/comfy " * (MAX_MESSAGE_LENGTH // 10) + "\nend"}) == {"notes": "end"}


def test_pictures_and_sound_are_not_read() -> None:
    assert not any(is_read(each) for each in ("image/png", "Video/webm", "audio/webm", "font/woff2"))
    assert all(
        is_read(each) for each in ("application/json", "text/html; charset=utf-8", "", "application/octet-stream")
    )
