"""Data URLs as files: what is read, and what is refused before it takes memory."""

from __future__ import annotations

import base64

import pytest

from policy.functions import data_urls
from policy.functions.data_urls import DataFile, is_data_url, read_data_url
from policy.violation import Reason, Violation


def url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def test_a_file() -> None:
    assert read_data_url("picture", url(b"abc")) == DataFile("picture.png", b"abc")
    assert read_data_url("voice", url(b"abc", "audio/mpeg")).name == "voice.mp3"
    assert read_data_url("p", url(b"abc", "IMAGE/JPEG;name=a.jpg")).name == "p.jpg"
    assert is_data_url("DATA:x")
    assert not is_data_url("00000000-0000")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("data:", "write a data URL as"),
        ("data:image/png,abc", "write a data URL as"),
        ("data:;base64,YWJj", "write a data URL as"),
        ("data:" + "x" * 2000 + ",", "write a data URL as"),
        (url(b"abc", "image/svg+xml"), "one of these types"),
        (url(b"abc", "text/html"), "one of these types"),
        ("data:image/png;base64,YW=j", "not base64"),
        ("data:image/png;base64,YWJ", "not base64"),
        ("data:image/png;base64,YW Jj", "not base64"),
        ("data:image/png;base64,é", "not base64"),
        ("data:image/png;base64,", "is empty"),
    ],
)
def test_what_is_none(text: str, rule: str) -> None:
    with pytest.raises(Violation, match=rule) as refused:
        read_data_url("picture", text)
    assert (refused.value.reason, refused.value.details) == (Reason.ARGUMENT_REFUSED, "picture")


@pytest.mark.parametrize("more", [1, 2, 3, 100])
def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    monkeypatch.setattr(data_urls, "MAX_BYTES", 1000)
    assert len(read_data_url("p", url(b"x" * 1000)).data) == 1000
    with pytest.raises(Violation, match="multipart/form-data"):
        read_data_url("p", url(b"x" * (1000 + more)))
