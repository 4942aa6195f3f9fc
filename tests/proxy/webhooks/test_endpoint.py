"""Endpoints as the configuration makes them, and what their messages are signed with."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from proxy.config.reader import Config, ConfigError, Mistake, check_config
from proxy.webhooks.endpoint import Endpoint, make_endpoints, new_secret

SHOP = {
    "name": "shop",
    "tenant": "alice",
    "url": "https://shop.example.com/hooks?token=CANARY",
    "secret_file": "shop.secret",
}


def config(folder: Path, *webhooks: dict[str, Any]) -> Config:
    return check_config({"tenants": {"alice": {}}, "webhooks": list(webhooks)}, folder / "config.toml")


def made(folder: Path, **more: Any) -> Endpoint:
    (folder / "shop.secret").write_text(new_secret(), "ascii")
    mistakes: list[Mistake] = []
    [endpoint] = make_endpoints(config(folder, SHOP | more), mistakes)
    assert not mistakes
    return endpoint


def test_a_secret_has_as_many_random_bytes_as_the_standard_wants() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    assert first.startswith("whsec_")
    assert 24 <= len(base64.b64decode(first.removeprefix("whsec_"), validate=True)) <= 64


def test_a_message_is_signed_for_its_time_and_its_body(tmp_path: Path) -> None:
    endpoint = made(tmp_path)
    at_s = time.time()
    headers = endpoint.headers("msg_1", at_s, b'{"a": 1}')
    receiver = Webhook((tmp_path / "shop.secret").read_text("ascii"))
    assert receiver.verify(b'{"a": 1}', headers) == {"a": 1}
    assert headers["webhook-timestamp"] == str(int(at_s))
    with pytest.raises(WebhookVerificationError):
        receiver.verify(b'{"a": 2}', headers)


def test_nothing_that_is_shown_of_an_endpoint_holds_its_secret_or_its_path(tmp_path: Path) -> None:
    endpoint = made(tmp_path)
    secret = (tmp_path / "shop.secret").read_text("ascii").removeprefix("whsec_")
    assert endpoint.place == "https://shop.example.com"
    assert secret not in repr(endpoint)
    assert "Webhook" not in repr(endpoint)


def test_another_address_tenant_or_choice_of_events_makes_it_another_endpoint(tmp_path: Path) -> None:
    same = made(tmp_path).fingerprint
    assert made(tmp_path).fingerprint == same, "another secret is another signature, and the same receiver"
    assert made(tmp_path, url="https://shop.example.com/other").fingerprint != same
    assert made(tmp_path, events=["job.failed"]).fingerprint != same
    assert made(tmp_path, allow_private=True).fingerprint != same


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"",
        b"whsec_",
        b"whsec_" + base64.b64encode(bytes(23)),
        b"whsec_" + base64.b64encode(bytes(65)),
        b"whsec_!!!!" + base64.b64encode(bytes(32)),
        base64.b64encode(bytes(32)),
        "whsec_ü".encode(),
        b"\xff\xfe",
    ],
)
def test_what_is_no_secret_is_refused_and_said_without_what_it_is(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "shop.secret").write_bytes(text)
    mistakes: list[Mistake] = []
    make_endpoints(config(tmp_path, SHOP), mistakes)
    [mistake] = mistakes
    assert mistake.path == "webhooks[0].secret_file"
    assert "comfygate webhooks secret" in mistake.message
    assert base64.b64encode(bytes(20)).decode() not in mistake.message


@pytest.mark.parametrize("number", [24, 64])
def test_shorter_and_longer_secrets_are_taken_as_the_standard_has_them(tmp_path: Path, number: int) -> None:
    (tmp_path / "shop.secret").write_bytes(b"whsec_" + base64.b64encode(bytes(number)) + b"\n")
    mistakes: list[Mistake] = []
    make_endpoints(config(tmp_path, SHOP), mistakes)
    assert not mistakes


def test_a_previous_secret_signs_too_and_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "old.secret").write_text(new_secret(), "ascii")
    endpoint = made(tmp_path, previous_secret_file="old.secret")
    headers = endpoint.headers("msg_1", time.time(), b"{}")
    for name in ("shop.secret", "old.secret"):
        Webhook((tmp_path / name).read_text("ascii")).verify(b"{}", headers)
    mistakes: list[Mistake] = []
    make_endpoints(config(tmp_path, SHOP | {"previous_secret_file": "no.secret"}), mistakes)
    assert [mistake.path for mistake in mistakes] == ["webhooks[0].previous_secret_file"]


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"tenant": "nobody"}, "webhooks[0].tenant", "there is no [tenants.nobody]"),
        ({"name": "The Shop"}, "webhooks[0].name", "lower-case letters"),
        ({"url": "http://shop.example.com"}, "webhooks[0]", "must be https"),
        ({"url": "http://shop.example.com", "allow_private": True}, "webhooks[0]", "must be https"),
        ({"url": "http://127.0.0.1:9"}, "webhooks[0]", "must be https"),
        ({"url": "ftp://shop.example.com"}, "webhooks[0].url", "write an address"),
        ({"url": "https:///a"}, "webhooks[0].url", "write an address"),
        ({"url": "https://shop.example.com/ü"}, "webhooks[0].url", "write an address"),
        ({"url": "https://a:b@shop.example.com"}, "webhooks[0].url", "no user name"),
        ({"url": "https://shop.example.com/#a"}, "webhooks[0].url", "no user name"),
        ({"url": "https://shop.example.com:99999"}, "webhooks[0].url", "port"),
        ({"events": []}, "webhooks[0].events", "at least one"),
        ({"events": ["job.failed", "job.stored"]}, "webhooks[0].events", "never come without [storage] with a url"),
        ({"events": ["job.storage_failed"]}, "webhooks[0].events", "never come without [storage] with a url"),
        ({"events": ["job.started"]}, "webhooks[0].events[0]", "job.succeeded"),
        ({"allow_private": "yes"}, "webhooks[0].allow_private", "valid boolean"),
        ({"secret": "whsec_CANARY"}, "webhooks[0].secret", "unknown key"),
        ({"headers": {}}, "webhooks[0].headers", "unknown key"),
    ],
)
def test_mistakes_in_the_configuration_are_told_with_their_place(
    tmp_path: Path, changes: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        config(tmp_path, SHOP | changes)
    [mistake] = raised.value.mistakes
    assert mistake.path == path
    assert words in mistake.message
    assert "CANARY" not in str(raised.value)


def test_two_endpoints_have_two_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the name shop is used twice"):
        config(tmp_path, SHOP, SHOP | {"url": "https://other.example.com"})


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("https://shop.example.com", {443}),
        ("https://shop.example.com:8443/a", {8443}),
        ("http://localhost", {80}),
        ("http://[::1]:9000", {9000}),
    ],
)
def test_an_endpoint_is_asked_at_its_own_port_alone(tmp_path: Path, url: str, ports: set[int]) -> None:
    assert made(tmp_path, url=url, allow_private=True).target.ports == ports
