"""Issuers that cannot be reached, a reload, and settings that cannot work."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from policy.principal import Principal
from proxy.auth.cloudflare_access import CloudflareAccess
from proxy.auth.jwt_issuers import JwtIssuers
from proxy.config import load_config
from proxy.config.identity import CloudflareAccessSettings, JwtSettings
from proxy.http.errors import IssuerUnavailable
from tests.proxy.issuers import Issuers, refused
from tests.proxy.jwks_server import Clock, JwksServer, signer
from tests.proxy.token_tables import (
    BAD,
    EC,
    ED,
    FILE_KEY,
    FOR_PEM,
    IDP,
    NOW,
    PEM,
    PSS,
    RSA,
    SECRET,
    SHARED,
    TENANTS,
    claims,
    hmac_sign,
)


@pytest.fixture
async def issuers(tmp_path: Path) -> AsyncIterator[Issuers]:
    async with JwksServer(RSA, PSS, EC, ED) as server:
        server.keys.append(signer("enc").jwk(use="enc"))
        yield Issuers(tmp_path, server)


@pytest.fixture
async def tokens(issuers: Issuers) -> AsyncIterator[JwtIssuers]:
    made = issuers.build()
    yield made
    await made.stop()


async def test_issuer_that_never_answered_is_said_to_be_the_reason(issuers: Issuers) -> None:
    await issuers.server.go_away()
    tokens = issuers.build()
    await tokens.start()
    with pytest.raises(IssuerUnavailable) as caught:
        await tokens.verify(RSA.sign(claims()))
    assert "Try again" in caught.value.message
    assert (await tokens.verify(FILE_KEY.sign(claims(**FOR_PEM)))).tenant == "acme"
    await tokens.stop()


async def test_start_fetches_before_the_first_request(issuers: Issuers) -> None:
    tokens = issuers.build()
    await tokens.start()
    await issuers.server.wait_for_requests(1)
    assert (await tokens.verify(RSA.sign(claims()))).tenant == "acme"
    assert len(issuers.server.paths) == 1
    await tokens.stop()


async def test_reload_keeps_the_keys_and_forgets_the_tokens(issuers: Issuers) -> None:
    before = issuers.build()
    token = RSA.sign(claims())
    await before.verify(token)
    await issuers.server.go_away()
    settings = {"idp": JwtSettings(issuer=IDP, audience="comfygate", jwks_url=issuers.server.url)}
    elsewhere = {"idp": JwtSettings(issuer=IDP, audience="comfygate", jwks_url="http://127.0.0.1:1/keys")}

    def build(settings: dict[str, JwtSettings], tenants: frozenset[str] = TENANTS) -> JwtIssuers:
        return JwtIssuers(
            settings,
            known_tenants=tenants,
            resolve=Path,
            clock=issuers.clock,
            monotonic=issuers.clock,
            previous=before,
        )

    assert (await build(settings).verify(token)).tenant == "acme"
    assert (await refused(build(settings, frozenset({"globex"})), token)).reason == "token-tenant-unknown"
    moved = build(elsewhere)
    with pytest.raises(IssuerUnavailable):
        await moved.verify(token)
    for made in (before, moved):
        await made.stop()


async def test_expired_token_does_not_make_the_issuer_work(issuers: Issuers, tokens: JwtIssuers) -> None:
    for number in range(10):
        await refused(tokens, hmac_sign(claims(), SECRET, {"kid": str(number)}))
        await refused(tokens, RSA.sign(claims(iss="https://evil.example.com"), {"kid": str(number)}))
    assert issuers.server.paths == []


def build_one(folder: Path, **settings: Any) -> JwtIssuers:
    base: dict[str, Any] = {"issuer": IDP, "audience": "comfygate"}
    return JwtIssuers({"idp": JwtSettings(**base | settings)}, known_tenants=TENANTS, resolve=folder.joinpath)


HS: dict[str, Any] = {"secret_file": Path("f"), "algorithms": ("HS256",)}
KEY: dict[str, Any] = {"public_key_file": Path("f")}
URL = {"jwks_url": "https://idp.example.com/keys"}


@pytest.mark.parametrize(
    ("content", "settings", "words"),
    [
        (b"s" * 31, HS, "at least 32 bytes"),
        (b"s" * 31 + b"\n", HS, "at least 32 bytes"),
        (b"", HS, "at least 32 bytes"),
        (b"\n" * 64, HS, "at least 32 bytes"),
        (b"s" * 47, HS | {"algorithms": ("HS256", "HS384")}, "at least 48 bytes"),
        (b"s" * 63, HS | {"algorithms": ("HS512",)}, "at least 64 bytes"),
        (RSA.pem(), HS, "holds a key, not a secret"),
        (None, HS, "cannot be read: No such file"),
        (None, KEY, "cannot be read: No such file"),
        (b"secret", KEY, "is not a PEM public key"),
        (EC.pem(), KEY | {"algorithms": ("RS256",)}, "no allowed algorithm goes with this key"),
        (None, URL | {"tenants": {"org": "initech"}}, r"there is no \[tenants.initech\]"),
        (None, URL | {"tenant_claim": "a..b"}, "is no claim"),
        (None, URL | {"tenant_claim": ""}, "is no claim"),
        (None, URL | {"role_claim": ".role"}, "is no claim"),
        (None, URL | {"scope_claim": "scope."}, "is no claim"),
        (None, URL | {"audience": ("comfygate", "")}, "audience must not be empty"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    tmp_path: Path, content: bytes | None, settings: dict[str, Any], words: str
) -> None:
    if content is not None:
        (tmp_path / "f").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^jwt\.idp: .*{words}"):
        build_one(tmp_path, **settings)


@pytest.mark.parametrize(("algorithm", "length"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
async def test_shortest_secret_works(tmp_path: Path, algorithm: str, length: int) -> None:
    (tmp_path / "f").write_bytes(b"s" * length + b"\r\n")
    base = {"issuer": IDP, "audience": "comfygate", "secret_file": Path("f"), "algorithms": (algorithm,)}
    settings = JwtSettings.model_validate(base)
    tokens = JwtIssuers({"idp": settings}, known_tenants=TENANTS, resolve=tmp_path.joinpath, clock=Clock(NOW))
    assert (await tokens.verify(hmac_sign(claims(), b"s" * length, algorithm=algorithm))).tenant == "acme"
    assert (
        await refused(tokens, hmac_sign(claims(), b"s" * (length + 1), algorithm=algorithm))
    ).reason == "token-invalid"


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    def settings(**changes: Any) -> JwtSettings:
        base: dict[str, Any] = {"issuer": IDP, "audience": "comfygate", "jwks_url": "https://idp.example.com/keys"}
        return JwtSettings(**base | changes)

    with pytest.raises(ValueError, match="jwt") as caught:
        JwtIssuers(
            {
                "good": settings(),
                "twin": settings(audience="other"),
                "a:b": settings(issuer="https://other.example.com"),
                "bad": settings(issuer="https://bad.example.com", tenant_claim="."),
                "none": JwtSettings.model_construct(
                    issuer="x", audience="y", algorithms=("RS256",), jwks_url=None, public_key_file=None
                ),
            },
            known_tenants=TENANTS,
            resolve=tmp_path.joinpath,
        )
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["jwt.twin", "jwt.a:b", "jwt.bad", "jwt.none"]
    assert "its issuer is that of another table" in lines[0]


DOCUMENT = Path(__file__).parents[2] / "docs" / "tokens.md"
EXAMPLES = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_example_of_the_documentation_works(tmp_path: Path, index: int) -> None:
    (tmp_path / "config.toml").write_text(EXAMPLES[index], encoding="utf-8")
    (tmp_path / "supabase-jwt-secret").write_bytes(SECRET)
    (tmp_path / "backend.pub.pem").write_bytes(ED.pem())
    config = load_config(tmp_path / "config.toml", {})
    tenants = frozenset(config.tenants)
    JwtIssuers(config.jwt, known_tenants=tenants, resolve=config.resolve)
    if config.cloudflare_access is not None:
        CloudflareAccess(config.cloudflare_access, known_tenants=tenants)
    assert config.jwt or config.cloudflare_access


def test_documentation_names_every_setting_and_reason() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    names = {*JwtSettings.model_fields, *CloudflareAccessSettings.model_fields}
    types = {str(case.values[1]).replace("-", "_") for case in BAD} | {"token_keys_unavailable"}
    assert [name for name in sorted(names | types) if name not in text] == []


SHARED_CLAIMS = claims(iss=SHARED, app={"org": "org-1", "role": "ops"}, scope="jobs:read files:read")
ROLES: dict[str, Any] = {"role_claim": "app.role", "roles": {"ops": "admin"}}


def shared(folder: Path, known: frozenset[str] = TENANTS, name: str = "main", **changes: Any) -> JwtIssuers:
    base: dict[str, Any] = {
        "issuer": SHARED,
        "audience": "comfygate",
        "tenant_claim": "app.org",
        "scope_claim": "scope",
    }
    mapped = {"secret_file": Path("f"), "algorithms": ("HS256",), "tenants": {"org-1": "acme", "org-2": "acme"}}
    settings = JwtSettings.model_validate(base | mapped | ROLES | changes)
    return JwtIssuers({name: settings}, known_tenants=known, resolve=folder.joinpath, clock=Clock(NOW))


@pytest.mark.parametrize(
    ("changes", "is_known"),
    [
        ({}, True),
        ({"tenants": {"org-1": "acme", "org-3": "globex"}}, True),
        ({"tenants": {"org-2": "acme"}}, False),  # its own value leads nowhere, another's still to the tenant
        ({"tenants": {"org-1": "globex", "org-2": "acme"}}, False),
        ({"roles": {"boss": "admin"}}, False),
        ({"role_claim": None, "roles": {}}, False),
        ({"scope_claim": None}, True),
        ({"scope_claim": "permissions"}, False),
        ({"audience": ("other", "comfygate")}, True),
        ({"audience": "other"}, False),
        ({"required_claims": ("amr",)}, False),
        ({"issuer": PEM}, False),
        ({"name": "other"}, False),
        ({"tenants": {}, "tenant_claim": "org"}, False),
    ],
)
async def test_what_a_token_opened_lives_as_long_as_the_token_would_be_let_in(
    tmp_path: Path, changes: dict[str, Any], is_known: bool
) -> None:
    (tmp_path / "f").write_bytes(SECRET)
    principal = await shared(tmp_path).verify(hmac_sign(SHARED_CLAIMS, SECRET))
    assert principal.is_admin
    assert shared(tmp_path, **changes).still_knows(principal) is is_known


async def test_what_a_token_opened_ends_with_its_tenant(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(SECRET)
    principal = await shared(tmp_path, tenants={}).verify(hmac_sign(claims(iss=SHARED, app={"org": "acme"}), SECRET))
    assert shared(tmp_path, tenants={}).still_knows(principal)
    assert not shared(tmp_path, frozenset({"globex"}), tenants={}).still_knows(principal)
    assert not shared(tmp_path, tenants={}).still_knows(Principal(principal.subject, principal.tenant))


async def test_what_a_token_opened_ends_with_the_key_that_proved_it(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(SECRET)
    principal = await shared(tmp_path).verify(hmac_sign(SHARED_CLAIMS, SECRET))
    (tmp_path / "f").write_bytes(SECRET[::-1])
    assert not shared(tmp_path).still_knows(principal)
