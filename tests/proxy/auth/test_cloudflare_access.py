"""Cloudflare Access: who an assertion is, and which ones are nobody's."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from policy.principal import ALL_SCOPES, Role
from proxy.auth import cloudflare_access as access_module
from proxy.auth.cloudflare_access import CloudflareAccess, parse_email
from proxy.config.identity import CloudflareAccessSettings
from proxy.http.errors import IssuerUnavailable, Unauthenticated, refusal_for
from tests.proxy.jwks_server import Clock, JwksServer, as_json, signer

NOW = 1_800_000_000
LEEWAY = 30
TEAM = "https://comfy.cloudflareaccess.com"
AUDIENCE = "32eafc7626e737d3d3a1e0ad5ae0c8a2"
ALICE = "7335d417-61da-459d-899c-0a01c76a2f94"
CLIENT_ID = "e367826f93b8d71185e03fe518aff3b4.access"
OPERATOR_ID = "0123456789abcdef0123456789abcdef.access"
TENANTS = frozenset({"acme", "globex", "initech"})

KEY, OTHER_ALGORITHM, MALLORY = signer("edge"), signer("edge-ec", "ES256"), signer("mallory")

SETTINGS: dict[str, Any] = {
    "team_domain": "comfy.cloudflareaccess.com",
    "audience": [AUDIENCE, "second"],
    "emails": {"Alice@Example.com": "acme", "boss@globex.test": "globex"},
    "email_domains": {"globex.test": "globex", "@initech.test": "initech"},
    "groups": {"artists": "acme", "engineers": "globex"},
    "service_tokens": {CLIENT_ID: "initech", OPERATOR_ID: "acme"},
    "admins": ["BOSS@globex.test", OPERATOR_ID],
}


def person(**changes: Any) -> dict[str, Any]:
    """The claims of a person as the edge writes them, changed; `...` leaves one out."""
    usual = {
        "aud": [AUDIENCE],
        "email": "alice@example.com",
        "exp": NOW + 300,
        "iat": NOW,
        "nbf": NOW,
        "iss": TEAM,
        "type": "app",
        "identity_nonce": "6ei69kawdKzMIAPF",
        "sub": ALICE,
        "country": "US",
    }
    return {name: value for name, value in {**usual, **changes}.items() if value is not ...}


def service(**changes: Any) -> dict[str, Any]:
    """The claims of a service token: an empty sub, no e-mail."""
    return person(**{"email": ..., "identity_nonce": ..., "nbf": ..., "sub": "", "common_name": CLIENT_ID, **changes})


@pytest.fixture
async def server() -> AsyncIterator[JwksServer]:
    async with JwksServer(KEY, OTHER_ALGORITHM) as made:
        yield made


def build(server: JwksServer | None = None, clock: Clock | None = None, **changes: Any) -> CloudflareAccess:
    certs_url = {"certs_url": server.url} if server is not None else {}
    settings = CloudflareAccessSettings.model_validate({**SETTINGS, **certs_url, **changes})
    clock = clock or Clock(float(NOW))
    return CloudflareAccess(settings, known_tenants=TENANTS, clock=clock, monotonic=clock)


@pytest.fixture
async def access(server: JwksServer) -> AsyncIterator[CloudflareAccess]:
    made = build(server)
    yield made
    await made.stop()


async def refused(access: CloudflareAccess, token: str) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        await access.verify(token)
    return caught.value


PEOPLE: dict[str, tuple[dict[str, Any], str, Role]] = {
    "e-mail": (person(), "acme", Role.USER),
    "e-mail in capitals": (person(email="ALICE@EXAMPLE.COM"), "acme", Role.USER),
    "domain": (person(email="carol@globex.test"), "globex", Role.USER),
    "domain in capitals": (person(email="carol@Globex.Test"), "globex", Role.USER),
    "domain written with @": (person(email="peter@initech.test"), "initech", Role.USER),
    "admin by e-mail": (person(email="Boss@globex.test"), "globex", Role.ADMIN),
    "group": (person(email="x@other.test", groups=["visitors", "artists"]), "acme", Role.USER),
    "custom group": (person(email="x@other.test", custom={"groups": ["engineers"]}), "globex", Role.USER),
    "group without e-mail": (person(email=..., groups=["artists"]), "acme", Role.USER),
    "two groups: the configuration's first": (person(email=..., groups=["engineers", "artists"]), "acme", Role.USER),
    "groups at two places": (
        person(email=..., groups=["engineers"], custom={"groups": ["artists"]}),
        "acme",
        Role.USER,
    ),
    "e-mail before domain and group": (person(email="boss@globex.test", groups=["artists"]), "globex", Role.ADMIN),
    "domain before group": (person(email="carol@globex.test", groups=["artists"]), "globex", Role.USER),
    "groups of odd types": (person(email=..., groups=[7, None, ["engineers"], "artists"]), "acme", Role.USER),
    "common name beside a sub counts for nothing": (person(common_name=OPERATOR_ID), "acme", Role.USER),
    "aud one of several": (person(aud=["other", "second"]), "acme", Role.USER),
}


@pytest.mark.parametrize("name", PEOPLE)
async def test_person_has_the_tenant_of_the_tables(access: CloudflareAccess, name: str) -> None:
    claims, tenant, role = PEOPLE[name]
    principal = await access.verify(KEY.sign(claims))
    assert principal.tenant == tenant
    assert principal.role is role
    assert principal.scopes == ALL_SCOPES
    assert principal.subject == f"access:{ALICE}"
    assert principal.expires_at_s == NOW + 300


@pytest.mark.parametrize(
    ("claims", "tenant", "role", "client_id"),
    [
        (service(), "initech", Role.USER, CLIENT_ID),
        (service(email=""), "initech", Role.USER, CLIENT_ID),
        (service(common_name=OPERATOR_ID), "acme", Role.ADMIN, OPERATOR_ID),
    ],
)
async def test_service_token_has_the_tenant_of_its_common_name(
    access: CloudflareAccess, claims: dict[str, Any], tenant: str, role: Role, client_id: str
) -> None:
    principal = await access.verify(KEY.sign(claims))
    assert (principal.tenant, principal.role) == (tenant, role)
    assert principal.subject == f"access-service:{client_id}"


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "nothing": (person(), {}, True),
    "another person": (person(), {"emails": {"alice@example.com": "acme", "bob@example.com": "acme"}}, True),
    "the person, not the colleague": (person(), {"emails": {"bob@example.com": "acme"}}, False),
    "the person's tenant": (person(), {"emails": {"alice@example.com": "globex", "bob@example.com": "acme"}}, False),
    "the domain": (person(email="carol@globex.test"), {"email_domains": {}}, False),
    "the group": (person(email=..., groups=["artists"]), {"groups": {"painters": "acme"}}, False),
    "an admin": (person(email="boss@globex.test"), {"admins": []}, False),
    "a new admin": (person(), {"admins": ["alice@example.com"]}, True),
    "the service": (service(), {"service_tokens": {OPERATOR_ID: "initech"}}, False),
    "the application": (person(), {"audience": ["third"]}, False),
    "the team": (person(), {"team_domain": "other.cloudflareaccess.com"}, False),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_what_a_person_has_open_lives_as_long_as_that_person_would_be_let_in(
    access: CloudflareAccess, server: JwksServer, name: str
) -> None:
    claims, changes, is_known = CHANGES[name]
    principal = await access.verify(KEY.sign(claims))
    assert access.still_knows(principal)
    settings = CloudflareAccessSettings.model_validate({**SETTINGS, "certs_url": server.url, **changes})
    clock = Clock(float(NOW))
    after = CloudflareAccess(settings, known_tenants=TENANTS, clock=clock, monotonic=clock, previous=access)
    assert after.still_knows(principal) is is_known


async def test_what_a_person_has_open_ends_when_its_key_is_none_of_the_teams_any_more(
    access: CloudflareAccess, server: JwksServer
) -> None:
    principal = await access.verify(KEY.sign(person()))
    after = build(server)
    assert not after.still_knows(principal), "nothing is known yet"
    assert await after.key_sets[0].try_once() is None
    assert after.still_knows(principal)
    server.keys = [OTHER_ALGORITHM.jwk()]
    assert await after.key_sets[0].try_once() is None
    assert not after.still_knows(principal)
    await after.stop()


NOBODY: dict[str, dict[str, Any]] = {
    "unknown e-mail": person(email="mallory@other.test"),
    "no e-mail and no group": person(email=...),
    "e-mail a list": person(email=["alice@example.com"]),
    "e-mail null": person(email=None),
    "subdomain of a domain": person(email="x@evil.globex.test"),
    "longer domain": person(email="x@evilglobex.test"),
    "domain in the name": person(email="x@globex.test@other.test"),
    "domain before another": person(email="globex.test@other.test"),
    "two ats that end well": person(email="x@other.test@globex.test"),
    "domain alone": person(email="@globex.test"),
    "domain without at": person(email="globex.test"),
    "e-mail with a space": person(email="alice@example.com "),
    "e-mail with a newline": person(email="alice@example.com\n"),
    "e-mail with NUL": person(email="x\0@globex.test"),
    "Kelvin sign for k": person(email="\u212a@globex.test"),
    "dotted capital I": person(email="AL\u0130CE@example.com"),
    "full-width letters": person(email="\uff41lice@example.com"),
    "groups a string": person(email=..., groups="artists"),
    "groups an object": person(email=..., groups={"artists": True}),
    "group of another case": person(email=..., groups=["Artists"]),
    "custom a list": person(email=..., custom=["groups"]),
    "empty sub with a known e-mail": service(common_name=..., email="alice@example.com"),
    "empty sub, e-mail and common name": service(email="alice@example.com"),
    "blank sub with a known e-mail": person(sub="  "),
    "empty sub with a group": service(common_name=..., groups=["artists"]),
    "empty sub and nothing": service(common_name=...),
    "empty common name": service(common_name=""),
    "unknown common name": service(common_name="ffffffffffffffffffffffffffffffff.access"),
    "common name of another case": service(common_name=CLIENT_ID.upper()),
    "common name a list": service(common_name=[CLIENT_ID]),
    "common name null": service(common_name=None),
    "e-mail as common name": service(common_name="alice@example.com"),
    "admin's e-mail as common name": service(common_name="boss@globex.test"),
}


@pytest.mark.parametrize("name", NOBODY)
async def test_nobody_has_no_tenant_here(access: CloudflareAccess, name: str) -> None:
    error = await refused(access, KEY.sign(NOBODY[name]))
    assert error.reason == "token-tenant-unknown"
    assert "This identity has no tenant here" in error.message
    refusal = refusal_for(error)
    assert refusal is not None
    assert refusal.status == 401


BAD: dict[str, tuple[Callable[[], str], str]] = {
    "another's signature": (lambda: MALLORY.sign(person(), {"kid": "edge"}), "token-invalid"),
    "unknown kid": (lambda: MALLORY.sign(person()), "token-invalid"),
    "not RS256": (lambda: OTHER_ALGORITHM.sign(person()), "token-invalid"),
    "RS512": (lambda: KEY.sign(person(), {"alg": "RS512"}, algorithm="RS512"), "token-invalid"),
    "another team": (lambda: KEY.sign(person(iss="https://evil.cloudflareaccess.com")), "token-invalid"),
    "issuer without https": (lambda: KEY.sign(person(iss="comfy.cloudflareaccess.com")), "token-invalid"),
    "issuer with a slash": (lambda: KEY.sign(person(iss=TEAM + "/")), "token-invalid"),
    "no issuer": (lambda: KEY.sign(person(iss=...)), "token-invalid"),
    "another application": (lambda: KEY.sign(person(aud=["other"])), "token-invalid"),
    "no audience": (lambda: KEY.sign(person(aud=...)), "token-invalid"),
    "empty audience": (lambda: KEY.sign(person(aud=[])), "token-invalid"),
    "no expiry": (lambda: KEY.sign(person(exp=...)), "token-invalid"),
    "expired": (lambda: KEY.sign(person(exp=NOW - LEEWAY)), "token-expired"),
    "not yet": (lambda: KEY.sign(person(nbf=NOW + LEEWAY + 1)), "token-invalid"),
    "issued in the future": (lambda: KEY.sign(person(iat=NOW + LEEWAY + 1)), "token-invalid"),
    "no sub": (lambda: KEY.sign(person(sub=...)), "token-invalid"),
    "sub null": (lambda: KEY.sign(person(sub=None)), "token-invalid"),
    "sub a number": (lambda: KEY.sign(person(sub=0)), "token-invalid"),
    "service token without sub": (lambda: KEY.sign(service(sub=...)), "token-invalid"),
    "type of the login": (lambda: KEY.sign(person(type="org")), "token-invalid"),
    "type missing": (lambda: KEY.sign(person(type=...)), "token-invalid"),
    "type of another case": (lambda: KEY.sign(person(type="App")), "token-invalid"),
    "type a list": (lambda: KEY.sign(person(type=["app"])), "token-invalid"),
    "e-mail twice": (
        lambda: KEY.sign(as_json(person())[:-1] + b', "email": "boss@globex.test"}'),
        "token-malformed",
    ),
    "the cookie's name": (lambda: "CF_Authorization=" + KEY.sign(person()), "token-malformed"),
    "empty": (lambda: "", "token-malformed"),
    "too large": (lambda: KEY.sign(person(pad="x" * 20_000)), "token-malformed"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_assertion_is_refused_and_not_logged(
    access: CloudflareAccess, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await access.verify(KEY.sign(person()))
    make, reason = BAD[name]
    token = make()
    error = await refused(access, token)
    assert error.reason == reason
    told = error.message + caplog.text
    assert [part for part in (token, *token.split(".")) if len(part) >= 8 and part in told] == []


async def test_times_within_the_leeway_are_taken(access: CloudflareAccess) -> None:
    claims = person(exp=NOW - LEEWAY + 1, nbf=NOW + LEEWAY, iat=NOW + LEEWAY)
    assert (await access.verify(KEY.sign(claims))).tenant == "acme"


async def test_seen_assertion_is_not_verified_again_and_expires(
    server: JwksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(float(NOW))
    access = build(server, clock)
    token = KEY.sign(person())
    first = await access.verify(token)

    async def no_proof(*_: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr(access_module, "prove", no_proof)
        assert await access.verify(token) is first
    clock.advance(300 + LEEWAY)
    assert (await refused(access, token)).reason == "token-expired"
    await access.stop()


async def test_keys_of_the_edge_rotate(access: CloudflareAccess, server: JwksServer) -> None:
    await access.verify(KEY.sign(person()))
    successor = signer("edge-2")
    server.keys.append(successor.jwk())
    assert (await access.verify(successor.sign(person()))).tenant == "acme"
    assert (await access.verify(KEY.sign(person(identity_nonce="other")))).tenant == "acme"


async def test_start_fetches_and_a_successor_takes_over(server: JwksServer) -> None:
    before = build(server)
    await before.start()
    await server.wait_for_requests(1)
    token = KEY.sign(person())
    await before.verify(token)
    await server.go_away()

    def succeed(**changes: Any) -> CloudflareAccess:
        settings = CloudflareAccessSettings.model_validate({**SETTINGS, "certs_url": server.url, **changes})
        clock = Clock(float(NOW))
        return CloudflareAccess(settings, known_tenants=TENANTS, clock=clock, monotonic=clock, previous=before)

    same, moved = succeed(emails={"alice@example.com": "globex"}), succeed(certs_url="http://127.0.0.1:1/")
    assert (await same.verify(token)).tenant == "globex"
    with pytest.raises(IssuerUnavailable):
        await moved.verify(token)
    for made in (before, same, moved):
        await made.stop()


def test_certs_lie_at_the_team_domain() -> None:
    assert build()._jwks.url == f"{TEAM}/cdn-cgi/access/certs"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"emails": {"alice": "acme"}}, "emails.alice: is no e-mail address"),
        ({"emails": {"ålice@example.com": "acme"}}, "is no e-mail address in ASCII"),
        ({"emails": {"a@b.test": "nowhere"}}, r"emails.a@b.test: there is no \[tenants.nowhere\]"),
        ({"emails": {"a@b.test": "acme", "A@B.test": "globex"}}, "stands twice with different tenants"),
        ({"email_domains": {"a b": "acme"}}, "email_domains.a b: is no domain"),
        ({"email_domains": {"": "acme"}}, "is no domain"),
        ({"email_domains": {"b.test": "acme", "@B.test": "globex"}}, "stands twice"),
        ({"groups": {"": "acme"}}, "groups.: must not be empty"),
        ({"groups": {"g": "nowhere"}}, r"groups.g: there is no \[tenants.nowhere\]"),
        ({"service_tokens": {"": "acme"}}, "service_tokens.: must not be empty"),
        ({"service_tokens": {"x.access": "nowhere"}}, "there is no"),
        ({"audience": []}, "audience must not be empty"),
        ({"audience": ""}, "audience must not be empty"),
        ({"certs_url": "http://comfy.cloudflareaccess.com/certs"}, "must be https"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=rf"^cloudflare_access.*{words}"):
        build(**changes)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ValueError, match="cloudflare_access") as caught:
        build(emails={"alice": "acme", "a@b.test": "nowhere"}, groups={"": "acme"})
    assert len(str(caught.value).splitlines()) == 3


def test_same_address_twice_with_one_tenant_is_no_mistake() -> None:
    build(emails={"a@b.test": "acme", "A@b.test": "acme"})


@pytest.mark.parametrize(("text", "email"), [("A.b+c@D.test", "a.b+c@d.test"), ("@d.test", None), (None, None)])
def test_email_is_parsed(text: object, email: str | None) -> None:
    assert parse_email(text) == email
