from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.v2.links import Links
from tests.policy.tenants import uuid_of

ID = uuid_of(1)


@pytest.mark.parametrize("prefix", ["", "/comfy"])
def test_what_a_client_follows_with_its_key_is_relative_to_the_host(prefix: str) -> None:
    """It begins with the prefix and holds `/api/`: both SDKs put the origin that they were given in front of it."""
    assert Links("http://inside:8190", prefix).job(ID) == f"{prefix}/api/v2/jobs/{ID}"


@pytest.mark.parametrize("prefix", ["", "/comfy"])
def test_an_address_of_content_is_absolute(prefix: str) -> None:
    url = Links("https://gate.example", prefix).content(ID)
    assert url == f"https://gate.example{prefix}/api/v2/assets/{ID}/content"


@given(st.text(min_size=1))
def test_whatever_an_id_holds_it_stays_one_segment(name: str) -> None:
    links = Links("https://gate.example", "/p")
    for path, before, after in (
        (links.job(name), "/p/api/v2/jobs/", ""),
        (urlsplit(links.content(name)).path, "/p/api/v2/assets/", "/content"),
    ):
        segment = path.removeprefix(before).removesuffix(after)
        assert path == f"{before}{segment}{after}"
        assert path.isascii()
        assert not set(segment) & set("/?#;:\\")
        assert unquote(segment) == name
    assert urlsplit(links.content(name)).netloc == "gate.example"
