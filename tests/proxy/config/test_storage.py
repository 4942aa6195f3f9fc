"""`[storage]`: what it takes, and what it says to what it does not take."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.config.storage import StorageSettings


def test_without_a_url_nothing_is_copied() -> None:
    settings = StorageSettings()
    assert (settings.is_on, settings.kind, settings.links, settings.keep_local) == (False, "", 3600.0, None)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("s3://bucket", "s3"),
        ("s3://bucket/a/b.c/", "s3"),
        ("gs://bucket/prefix", "gs"),
        ("az://account/container", "az"),
        ("file:///srv/outputs", "file"),
    ],
)
def test_a_place(url: str, kind: str) -> None:
    settings = StorageSettings.model_validate({"url": url})
    assert (settings.is_on, settings.kind, settings.url) == (True, kind, url.rstrip("/"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"url": "bucket"}, 'write "s3://bucket/prefix"'),
        ({"url": "https://s3.example.com/bucket"}, 'write "s3://bucket/prefix"'),
        ({"url": "s3://"}, 'write "s3://bucket/prefix"'),
        ({"url": "s3://key:secret@bucket"}, "credentials are in credentials_file"),
        ({"url": "s3://bucket?x=1"}, "credentials are in credentials_file"),
        ({"url": "s3://bucket/a//b"}, "a prefix has letters"),
        ({"url": "s3://bucket/../other"}, "a prefix has letters"),
        ({"url": "az://account"}, "name account and container"),
        ({"url": "file://host/folder"}, "name a folder of this machine"),
        ({"url": "file:///"}, "name a folder of this machine"),
        ({"url": "file:///srv", "endpoint": "http://127.0.0.1:9000"}, "endpoint is of a bucket: url names a folder"),
        ({"credentials_file": "x"}, "credentials_file is of a bucket: url names none"),
        ({"links": "1h"}, "url is missing"),
        ({"url": "gs://bucket", "region": "eu"}, "region is of s3"),
        ({"url": "s3://bucket", "region": "a b"}, "should match pattern"),
        ({"url": "s3://bucket", "endpoint": "s3.example.com"}, "write an address"),
        ({"url": "s3://bucket", "endpoint": "https://a:b@s3.example.com"}, "name credentials_file"),
        ({"url": "s3://bucket", "endpoint": 5}, "write an address"),
        ({"url": "s3://bucket", "links": "8d"}, "less than or equal"),
        ({"url": "s3://bucket", "keep_local": "1s"}, "greater than or equal"),
        ({"url": "s3://bucket", "secret": "x"}, "not permitted"),
    ],
)
def test_what_is_none(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as told:
        StorageSettings.model_validate(given)
    assert "secret@" not in str(told.value)
