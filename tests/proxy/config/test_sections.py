"""The single settings: what they take, what they refuse, and that what is absent is closed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from policy.principal import ALL_SCOPES, Role
from proxy.config.identity import CloudflareAccessSettings, JwtSettings, KeySettings, TenantSettings, tenant_of
from proxy.config.limits import LimitSettings, LimitsSettings
from proxy.config.server import LogSettings, ServerSettings, UpstreamSettings, parse_network, parse_origin

HASH = "sha256:" + "0a" * 32
KEY = {"id": "7f3a9c21", "hash": HASH, "tenant": "acme"}
JWT: dict[str, Any] = {"issuer": "https://i", "audience": "a", "jwks_url": "https://i/keys"}
ACCESS: dict[str, Any] = {"team_domain": "team.cloudflareaccess.com", "audience": "x"}


def test_a_key_has_safe_defaults() -> None:
    key = KeySettings.model_validate(KEY)
    assert (key.role, key.scopes, key.expires, key.limits, key.note) == (Role.USER, ALL_SCOPES, None, None, "")
    assert tenant_of(key) == "acme"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", "7F3A9C21"),
        ("id", "7f3a9c2"),
        ("id", "0" * 33),
        ("id", "7f3a9c2g"),
        ("hash", "0" * 64),
        ("hash", "sha256:" + "0" * 63),
        ("hash", "sha256:" + "A" * 64),
        ("hash", "sha1:" + "0" * 64),
        ("tenant", "Acme"),
        ("tenant", "-a"),
        ("tenant", ""),
        ("tenant", "a/b"),
        ("tenant", "a" * 64),
        ("role", "root"),
        ("scopes", ["everything"]),
        ("expires", "2027-01-01"),
        ("expires", 5),
        ("secret", "x"),
    ],
)
def test_a_key_that_is_none(field: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        KeySettings.model_validate({**KEY, field: value})


def test_a_moment_without_an_offset_is_utc() -> None:
    for written, expected in (
        (datetime(2027, 1, 1), datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2027, 1, 1, tzinfo=timezone(timedelta(hours=2))), datetime(2026, 12, 31, 22, tzinfo=UTC)),
    ):
        assert KeySettings.model_validate({**KEY, "expires": written}).expires == expected


@pytest.mark.parametrize(
    "change",
    [
        {"jwks_url": None},
        {"secret_file": "s"},
        {"public_key_file": "p"},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"algorithms": ["HS256"]},
        {"algorithms": ["RS256", "HS256"]},
        {"jwks_url": None, "public_key_file": "p", "algorithms": ["HS256"]},
        {"jwks_url": None, "secret_file": "s"},
        {"jwks_url": None, "secret_file": "s", "algorithms": ["HS256", "RS256"]},
        {"audience": ""},
        {"audience": []},
        {"issuer": ""},
        {"jwks_url": "http://far.example/keys"},
        {"jwks_url": "ftp://i/keys"},
        {"jwks_url": "https://"},
        {"leeway": "10m"},
        {"jwks_timeout": 0},
        {"tenants": {"A": "Not A Tenant"}},
        {"roles": {"a": "root"}},
    ],
)
def test_a_token_issuer_that_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JwtSettings.model_validate({**JWT, **change})


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"audience": ["a", "b"]},
        {"jwks_url": "http://127.0.0.1:9/keys"},
        {"jwks_url": "http://localhost/keys"},
        {"jwks_url": None, "public_key_file": "p"},
        {"jwks_url": None, "secret_file": "s", "algorithms": ["HS512"]},
    ],
)
def test_a_token_issuer(change: dict[str, Any]) -> None:
    assert JwtSettings.model_validate({**JWT, **change}).required_claims == ("exp", "sub")


def test_cloudflare_access() -> None:
    for text in ("team.cloudflareaccess.com", "https://Team.cloudflareaccess.com/"):
        assert (
            CloudflareAccessSettings.model_validate({**ACCESS, "team_domain": text}).team_domain
            == ACCESS["team_domain"]
        )
    for text in ("team", "", "http://team.example.com", "team.example.com/x", "a b.c"):
        with pytest.raises(ValidationError):
            CloudflareAccessSettings.model_validate({**ACCESS, "team_domain": text})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://Comfy.Example.com", "https://comfy.example.com"),
        ("https://comfy.example.com/", "https://comfy.example.com"),
        ("http://localhost:8190", "http://localhost:8190"),
        ("http://[::1]:8190", "http://[::1]:8190"),
    ],
)
def test_origins(text: str, expected: str) -> None:
    assert parse_origin(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "*", "null", "comfy.example.com", "//x", "ftp://x", "https://", "https://x/path", "https://x?q", "https://x#f",
     "https://u@x", "http://[::1", "http://x:99999", "http://x:port", 5, None],
)  # fmt: skip
def test_origins_that_are_none(text: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_origin(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("http://127.0.0.1:8188/", "http://127.0.0.1:8188"), ("http://[::1]:1", "http://[::1]:1")]
)
def test_upstream_address(text: str, expected: str) -> None:
    assert UpstreamSettings(url=text).url == expected


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1:8188", "https://x", "http://x/comfy", "http://x?y", "http://u:p@x", "http://", "http://x:99999", "http://x:port", "http://[::1", "http://x#f"],
)  # fmt: skip
def test_upstream_address_that_is_none(text: str) -> None:
    with pytest.raises(ValidationError):
        UpstreamSettings(url=text)


def test_empty_paths_are_absent() -> None:
    assert UpstreamSettings.model_validate({"directory": ""}).directory is None
    assert LogSettings.model_validate({"audit_file": ""}).audit_file is None
    assert LogSettings.model_validate({"audit_file": "a"}).audit_file == Path("a")


def test_networks() -> None:
    assert str(parse_network("10.1.2.3/8")) == "10.0.0.0/8"
    assert str(parse_network("::1")) == "::1/128"
    for text in ("x", "10.0.0.0/33", 5, None, ""):
        with pytest.raises(ValueError, match=r".+"):
            parse_network(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [("port", -1), ("port", 65536), ("max_header_bytes", 100), ("max_header_bytes", "1MiB"), ("header_timeout", 0), ("body_timeout", "0s"),
     ("max_connections", 0), ("cors_origins", ["*"]), ("trusted_proxies", ["everybody"]), ("host", 5)],
)  # fmt: skip
def test_server_settings_that_are_none(field: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        ServerSettings.model_validate({field: value})


def test_named_limits_are_lifted() -> None:
    limits = LimitsSettings.model_validate({"storage": "redis://h", "small": {"requests": "1/minute"}})
    assert set(limits.named) == {"default", "small"}
    assert (limits.named["small"].requests, limits.storage) == ("1/minute", "redis://h")


def test_a_table_of_limits_may_have_any_name() -> None:
    assert set(LimitsSettings.model_validate({"named": {"requests": "1/minute"}}).named) == {"default", "named"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("weight", 0), ("weight", 1001), ("queued_jobs", -1), ("retention", 0), ("storage", "x"), ("colour", 1)],
)
def test_limits_that_are_none(field: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        LimitSettings.model_validate({field: value})


def test_nothing_is_fetched_where_nothing_says_from_where() -> None:
    assert TenantSettings().fetch == ()
    named = TenantSettings(fetch=("Images.Example.com", "*.example.org:443", "*:8443"))
    assert named.fetch == ("images.example.com", "*.example.org", "*:8443")
    for text in ("https://images.example.com", "10.0.0.1", "", "images.example.com/a"):
        with pytest.raises(ValidationError, match="is no host"):
            TenantSettings(fetch=(text,))
