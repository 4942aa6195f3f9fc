"""What may be uploaded as an asset, and what is read of what a client says of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.namespace import Namespace
from policy.principal import TenantId
from policy.v2.asset_uploads import (
    MAX_PARTS,
    MAX_TAG_CHARACTERS,
    MAX_TAGS,
    MAX_TAGS_BYTES,
    AssetUpload,
    AssetUploadPlan,
    AssetUploadSession,
    is_hash,
    read_details,
    read_hash,
    read_placement,
    read_tags,
)
from policy.v2.assets import AssetDetails
from policy.v2.errors import in_words
from policy.violation import Reason, Violation
from tests.policy.names import HOSTILE, ODD
from tests.policy.tenants import refusal

PNG = b"\x89PNG\r\n\x1a\n"
DIGEST = "blake3:" + "0a" * 32
KEY = "cg_7f3a9c21_" + "A" * 43


def begin(**more: Any) -> AssetUploadSession:
    return AssetUploadPlan(Namespace(TenantId("alice")), "one-of-its-own", **more).begin()


def refused(function: Any, *arguments: Any) -> tuple[int, str]:
    """As the contract tells it."""
    violation = refusal(function, *arguments)
    statuses = {Reason.CREDENTIAL_MISPLACED: 400}
    return in_words(violation.error_type or violation.reason.replace("-", "_"), statuses.get(violation.reason, 0))


INVALID = (422, "invalid_request")


def test_what_is_said_comes_before_the_file() -> None:
    session = begin()
    for name, text in [
        ("content_type", "image/png"),
        ("file_path", "input/sub/x y.png"),
        ("expected_hash", DIGEST),
        ("tags", "a"),
        ("tags", "b"),
        ("tags", "a"),
        ("expires_in", "60"),
        ("later", "what this version does not know"),
        ("file_path", "input/sub/x y.png"),
    ]:
        session.accept_field(name, text)
    assert session.accept_file("file", 'any"thing', PNG) == "x y.png"
    assert session.upload == AssetUpload(
        AssetDetails("input/sub/x y.png", "image/png", ("a", "b"), 60.0), "x y.png", DIGEST
    )
    assert session.fields_to_send() == (("subfolder", "tenants/alice/api-v2/one-of-its-own"), ("type", "input"))
    assert session.keeps_name
    assert not session.plan.is_mask
    assert refused(session.accept_field, "tags", "c") == INVALID, "too late"
    assert refused(session.accept_file, "file", "y.png", PNG) == INVALID, "a second one"
    with pytest.raises(AssertionError):
        session.set_apart("token")


def test_nothing_but_a_file_is_an_upload() -> None:
    session = begin()
    session.accept_field("file_path", "x.png")
    assert refused(session.fields_to_send) == INVALID
    assert refused(session.accept_field, "file", "text") == INVALID
    assert refused(session.accept_file, "image", "x.png", PNG) == INVALID
    with pytest.raises(AssertionError):
        str(session.upload)


def test_parts_are_few() -> None:
    session = begin()
    for _ in range(MAX_PARTS):
        session.accept_field("later", "x")
    assert refused(session.accept_field, "later", "x") == INVALID


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("file_path", "output/x.png"),
        ("file_path", "TEMP/x.png"),
        ("file_path", "output/"),
        ("file_path", "sub/x.png [input]"),
        ("file_path", "../x.png"),
        ("file_path", "."),
        ("file_path", "x" * 300 + ".png"),
        ("content_type", "image"),
        ("content_type", "image/png\r\nX: y"),
        ("content_type", "image/" + "x" * 300),
        ("content_type", "a/" + "b" * 90 + ("; c=" + "d" * 90) * 3),
        ("expected_hash", "sha256:00"),
        ("expected_hash", DIGEST.upper()),
        ("expires_in", "59"),
        ("expires_in", "604801"),
        ("expires_in", "-60"),
        ("expires_in", "60.5"),
        ("expires_in", "٦٠٠"),
        ("expires_in", ""),
        ("expires_in", "9" * 5000),
        ("tags", "a\x1bb"),
        ("tags", "a\u202eb"),
        ("tags", "x" * 129),
    ],
)
def test_what_is_wrong_is_told_at_once(name: str, text: str) -> None:
    assert refused(begin().accept_field, name, text) == INVALID


@pytest.mark.parametrize("text", ["image/png", "text/plain; charset=utf-8", 'a/b;c="d e"', ""])
def test_content_types_that_are_one(text: str) -> None:
    session = begin()
    session.accept_field("content_type", text)
    session.accept_file("file", "x.png", PNG)
    assert session.upload.details.content_type == text


def test_a_field_has_one_value() -> None:
    session = begin()
    session.accept_field("file_path", "x.png")
    assert refused(session.accept_field, "file_path", "y.png") == INVALID


def test_models_are_the_operators() -> None:
    for path in ("models/checkpoints/x.safetensors", "Models/x.png", "models/x.png"):
        assert refused(begin().accept_field, "file_path", path) == (403, "forbidden")
    session = begin()
    session.accept_field("file_path", "models.png")
    assert session.accept_file("file", "", PNG) == "models.png"


@pytest.mark.parametrize(
    ("file_path", "filename", "found"),
    [
        ("photo.png", "other.png", ("photo.png", "photo.png")),
        ("", "photo.png", ("photo.png", "photo.png")),
        ("input/sub/", "photo.png", ("input/sub/photo.png", "photo.png")),
        ("a\\b.png", None, ("a\\b.png", "b.png")),
        ("input", None, ("input", "input")),
        ("", None, None),
        ("input/", None, None),
    ],
)
def test_placements(file_path: str, filename: str | None, found: Any) -> None:
    assert read_placement(file_path, filename) == found


@pytest.mark.parametrize("filename", ["", "sub/x.png", "a\\b.png", "..", "x [temp]"])
def test_a_parts_name_that_is_none_does_not_count(filename: str) -> None:
    assert refused(read_placement, "", filename) == INVALID


@pytest.mark.parametrize("name", [*HOSTILE, *ODD])
def test_a_name_stays_in_its_folder_or_is_refused(name: str) -> None:
    session = begin()
    try:
        session.accept_field("file_path", name)
        spelled = session.accept_file("file", "fallback.png", PNG)
    except Violation:
        return
    assert "/" not in spelled
    assert "\\" not in spelled
    assert spelled not in ("", ".", "..")
    shown = Namespace(TenantId("alice")).path_to_client(f"tenants/alice/api-v2/one/{spelled}")
    assert shown == f"api-v2/one/{session.upload.name}"


@given(st.text(max_size=40))
def test_whatever_stands_in_a_path_is_shown_as_it_came_or_refused(text: str) -> None:
    try:
        found = read_placement(text, None)
    except Violation:
        return
    if found is not None:
        assert found[0] == text
        assert text.replace("\\", "/").endswith((found[1], f"{found[1]}/."))


def test_media_and_pixels_are_judged() -> None:
    session = begin()
    session.accept_field("file_path", "x.png")
    assert refused(session.accept_file, "file", "x.png", b"<html>") == (403, "forbidden")
    large = PNG + b"\0\0\0\rIHDR" + (20_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    assert refused(begin().accept_file, "file", "x.png", large) == (413, "payload_too_large")
    assert begin(max_picture_pixels=10**9).accept_file("file", "x.png", large) == "x.png"


@pytest.mark.parametrize(
    ("name", "text"), [("file_path", f"{KEY}.png"), ("tags", KEY), ("content_type", f"image/{KEY}")]
)
def test_no_key_is_kept(name: str, text: str) -> None:
    """What is said of an asset is shown again."""
    assert refusal(begin().accept_field, name, text).reason is Reason.CREDENTIAL_MISPLACED


@pytest.mark.parametrize(
    ("document", "details"),
    [
        ({}, AssetDetails()),
        ({"file_path": None, "tags": None, "expires_in": None}, AssetDetails()),
        (
            {"file_path": "a/b.png", "tags": ["x", "y", "x"], "expires_in": 604_800, "later": 1},
            AssetDetails("a/b.png", "", ("x", "y"), 604_800.0),
        ),
    ],
)
def test_details_of_a_document(document: Any, details: AssetDetails) -> None:
    assert read_details(document) == details


@pytest.mark.parametrize(
    "document",
    [
        {"file_path": 1},
        {"file_path": "a/"},
        {"file_path": "output/x.png"},
        {"tags": "a"},
        {"tags": [1]},
        {"tags": [str(number) for number in range(MAX_TAGS + 1)]},
        {"tags": [f"{number:02}" + "\u00e9" * 126 for number in range(MAX_TAGS)]},
        {"expires_in": True},
        {"expires_in": "60"},
        {"expires_in": 60.0},
        {"expires_in": 59},
        {"expires_in": 10**400},
    ],
)
def test_documents_that_say_nothing_good(document: Any) -> None:
    assert refused(read_details, document) == INVALID


def test_hashes() -> None:
    assert read_hash(DIGEST, "hash") == DIGEST
    assert is_hash(DIGEST)
    for text in (None, 1, "", DIGEST[:-1], f"{DIGEST}0", f"{DIGEST}\n", DIGEST.upper(), "blake3:" + "g" * 64):
        assert refused(read_hash, text, "hash") == INVALID


def test_as_many_tags_as_there_may_be() -> None:
    tags = [str(number) for number in range(MAX_TAGS)]
    assert read_tags([*tags, "0"]) == tuple(tags)
    longest = [f"{number:02}" + "x" * (MAX_TAG_CHARACTERS - 2) for number in range(MAX_TAGS)]
    assert sum(map(len, longest)) == MAX_TAGS_BYTES
    assert read_tags(longest) == tuple(longest)
