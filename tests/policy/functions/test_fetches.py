"""Fetched files: what they are called by their first bytes, and what is said of those that could not be fetched."""

from __future__ import annotations

import pytest

from policy.addresses import Address
from policy.functions.fetches import Failure, FetchFailed, name_before, naming, refusal
from policy.functions.settings import ParameterType
from policy.rules.media import DEFAULT_UPLOAD_TYPES
from policy.violation import Reason, Violation

PNG, MP4, WAV = b"\x89PNG\r\n\x1a\n", b"\0\0\0\x18ftypisom", b"RIFF\0\0\0\0WAVE"
WEBM = b"\x1aE\xdf\xa3"
ADDRESS = Address("images.example.com", 443, "/secret?token=x")


@pytest.mark.parametrize(
    ("kind", "head", "name"),
    [
        ("image", PNG, "it.png"),
        ("mask", PNG, "it.png"),
        ("image", b"\xff\xd8\xff\xe0", "it.jpg"),
        ("image", b"RIFF\0\0\0\0WEBPVP8 ", "it.webp"),
        ("audio", WAV, "it.wav"),
        ("audio", b"ID3\x03", "it.mp3"),
        ("audio", MP4, "it.m4a"),
        ("video", MP4, "it.mp4"),
        ("video", WEBM, "it.webm"),
    ],
)
def test_a_file_is_called_after_its_first_bytes(kind: ParameterType, head: bytes, name: str) -> None:
    assert naming("it", kind, DEFAULT_UPLOAD_TYPES)(head) == name


@pytest.mark.parametrize(
    ("kind", "head", "types"),
    [
        ("image", MP4, DEFAULT_UPLOAD_TYPES),
        ("image", WAV, DEFAULT_UPLOAD_TYPES),
        ("video", PNG, DEFAULT_UPLOAD_TYPES),
        ("audio", PNG, DEFAULT_UPLOAD_TYPES),
        ("image", b"<svg xmlns='x'>", DEFAULT_UPLOAD_TYPES),
        ("image", b"<html>", DEFAULT_UPLOAD_TYPES),
        ("video", b"#EXTM3U", DEFAULT_UPLOAD_TYPES),
        ("image", b"", DEFAULT_UPLOAD_TYPES),
        ("video", MP4, frozenset({"image"})),
        ("image", b"glTF", frozenset({"image", "3d", "text", "latent"})),
    ],
)
def test_what_a_parameter_does_not_take(kind: ParameterType, head: bytes, types: frozenset[str]) -> None:
    with pytest.raises(Violation, match=r"is no (image|audio|video) of a type that is taken") as refused:
        naming("it", kind, types)(head)
    assert (refused.value.reason, refused.value.details) == (Reason.ARGUMENT_REFUSED, "it")


@pytest.mark.parametrize("kind", ["image", "mask", "audio", "video"])
def test_a_name_before_the_file_is_there(kind: ParameterType) -> None:
    assert name_before("it", kind).startswith("it.")


@pytest.mark.parametrize("failure", Failure)
def test_what_is_said_names_the_host_and_nothing_that_is_nobodys_business(failure: Failure) -> None:
    told = refusal("it", ADDRESS, FetchFailed(failure, "5", "10.0.0.1 is not a public address"))
    assert (told.reason, told.details) == (Reason.ARGUMENT_REFUSED, "it")
    assert told.message.startswith("The argument `it` cannot be fetched: images.example.com ")
    assert "secret" not in told.message
    assert "10.0.0.1" not in told.message
