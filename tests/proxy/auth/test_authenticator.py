"""Who gets in, with one credential and with several."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from policy.principal import Principal, Role, Scope, TenantId
from proxy.auth.api_keys import ApiKeyStore, KeyPrincipal, KeyRefused, generate_key, hash_key
from proxy.auth.authenticator import Authenticator
from proxy.auth.credentials import session_cookie
from proxy.auth.sessions import SessionRefused, Sessions
from proxy.config.identity import KeySettings
from proxy.http.errors import Unauthenticated

NOW_S = 1_800_000_000
ALICE_ID, ALICE = generate_key()
BOB_ID, BOB = generate_key()
MATE_ID, MATE = generate_key()  # another key of Alice's tenant
ADMIN_ID, ADMIN = generate_key()
OLD_ID, OLD = generate_key()
JWT = "h.p.s"
ACME = TenantId("acme")
Fields = list[tuple[str, str]]


class Verifier:
    """Knows tokens by their text."""

    def __init__(self, **known: Principal) -> None:
        self.known = known
        self.asked: list[str] = []

    async def verify(self, token: str) -> Principal:
        self.asked.append(token)
        if token not in self.known:
            raise Unauthenticated("The token is not valid.", reason="token-invalid")
        return self.known[token]

    def check_of(self, token: str) -> Callable[[], bool]:
        return lambda: token in self.known

    def still_knows(self, principal: Principal) -> bool:
        return principal in self.known.values()


def ring_without(*ids: str) -> ApiKeyStore:
    rows: list[dict[str, Any]] = [
        {"id": ALICE_ID, "hash": hash_key(ALICE), "tenant": "acme"},
        {"id": BOB_ID, "hash": hash_key(BOB), "tenant": "beta"},
        {"id": MATE_ID, "hash": hash_key(MATE), "tenant": "acme"},
        {"id": ADMIN_ID, "hash": hash_key(ADMIN), "tenant": "acme", "role": "admin", "scopes": ["jobs:read"]},
        {"id": OLD_ID, "hash": hash_key(OLD), "tenant": "acme", "expires": datetime.fromtimestamp(1, UTC)},
    ]
    return ApiKeyStore([KeySettings.model_validate(row) for row in rows if row["id"] not in ids], lambda: NOW_S)


SESSIONS = Sessions(b"s" * 32, lifetime_s=1000, is_secure=False, now=lambda: NOW_S)
TOKENS = Verifier(
    jalice=Principal(ALICE_ID, ACME, expires_at_s=NOW_S + 60.0),
    jcarol=Principal("carol", ACME),
    **{JWT: Principal("x", ACME)},
)
ACCESS = Verifier(
    aalice=Principal("alice@acme.example", ACME, expires_at_s=NOW_S + 50.0),
    abob=Principal("bob@beta.example", TenantId("beta")),
    anarrow=Principal("n@acme.example", ACME, scopes=frozenset({Scope.JOBS_READ, Scope.FILES_READ})),
)


def gate(keys: ApiKeyStore | None = None, **more: Any) -> Authenticator:
    parts: dict[str, Any] = {"tokens": TOKENS, "access": ACCESS, **more}
    return Authenticator(keys or ring_without(), SESSIONS, parts["tokens"], parts["access"])


def cookie(key: str) -> tuple[str, str]:
    ((_, value),) = SESSIONS.begin(ring_without().verify(key))
    return ("Cookie", value.partition(";")[0])


def basic(password: str) -> tuple[str, str]:
    return ("Authorization", "Basic " + base64.b64encode(f":{password}".encode()).decode())


def bearer(text: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {text}")


def assertion(text: str) -> tuple[str, str]:
    return ("Cf-Access-Jwt-Assertion", text)


async def call(authenticator: Authenticator, fields: Fields, token: str | None = None) -> Principal:
    query = () if token is None else (("token", token),)
    return await authenticator.authenticate(CIMultiDictProxy(CIMultiDict(fields)), query)


BAD_COOKIE = ("Cookie", "comfygate_session=1.forged")
GOOD: list[tuple[str, Fields, str | None, str, str]] = [
    ("bearer", [bearer(ALICE)], None, ALICE_ID, "acme"),
    ("basic", [basic(BOB)], None, BOB_ID, "beta"),
    ("key header", [("X-API-Key", ALICE)], None, ALICE_ID, "acme"),
    ("parameter", [], BOB, BOB_ID, "beta"),
    ("session", [cookie(ALICE)], None, ALICE_ID, "acme"),
    ("token", [bearer("jcarol")], None, "carol", "acme"),
    ("token as parameter", [], "jcarol", "carol", "acme"),
    ("assertion", [assertion("abob")], None, "bob@beta.example", "beta"),
    ("one key four times", [cookie(ALICE), bearer(ALICE), ("X-API-Key", ALICE)], ALICE, ALICE_ID, "acme"),
    ("token and session of one subject", [cookie(ALICE), bearer("jalice")], None, ALICE_ID, "acme"),
    ("key behind Access", [bearer(ALICE), assertion("aalice")], None, ALICE_ID, "acme"),
    ("session behind Access", [cookie(ALICE), assertion("aalice")], None, ALICE_ID, "acme"),
    ("token parameter behind Access", [assertion("aalice")], ALICE, ALICE_ID, "acme"),
]
BAD: list[tuple[str, Fields, str | None, str]] = [
    ("nothing", [], None, "credential-missing"),
    ("cookies of others", [("Cookie", "a=b")], None, "credential-missing"),
    ("unknown key", [bearer(generate_key()[1])], None, "key-unknown"),
    ("expired key", [bearer(OLD)], None, "key-expired"),
    ("key of the right id", [bearer(f"cg_{ALICE_ID}_{BOB[12:]}")], None, "key-unknown"),
    ("token in the key header", [("X-API-Key", "jcarol")], None, "key-malformed"),
    ("token as Basic password", [basic("jcarol")], None, "key-malformed"),
    ("key as assertion", [assertion(ALICE)], None, "token-invalid"),
    ("token as assertion", [assertion("jcarol")], None, "token-invalid"),
    ("assertion as token", [bearer("aalice")], None, "token-invalid"),
    ("Access cookie", [("Cookie", "CF_Authorization=aalice")], None, "credential-missing"),
    ("forged session", [BAD_COOKIE], None, "session-ended"),
    ("forged session beside a good key", [BAD_COOKIE, bearer(ALICE)], None, "session-ended"),
    ("bad key beside a good session", [cookie(ALICE), bearer(generate_key()[1])], None, "key-unknown"),
    ("bad key beside a good one", [bearer(ALICE), ("X-API-Key", OLD)], None, "key-expired"),
    ("bad parameter beside a good key", [bearer(ALICE)], "cg_x", "key-malformed"),
    ("bad token beside a good key", [("X-API-Key", ALICE), bearer("forged")], None, "token-invalid"),
    ("bad assertion beside a good key", [bearer(ALICE), assertion("forged")], None, "token-invalid"),
    ("two tenants by key", [bearer(ALICE), ("X-API-Key", BOB)], None, "credentials-disagree"),
    ("two keys of a tenant", [bearer(ALICE), ("X-API-Key", MATE)], None, "credentials-disagree"),
    ("session and key of two tenants", [cookie(BOB), bearer(ALICE)], None, "credentials-disagree"),
    ("token and key of two subjects", [bearer("jcarol"), ("X-API-Key", ALICE)], None, "credentials-disagree"),
    ("assertion of another tenant", [bearer(ALICE), assertion("abob")], None, "credentials-disagree"),
    ("third of another tenant", [cookie(ALICE), assertion("aalice")], BOB, "credentials-disagree"),
]


@pytest.mark.parametrize(
    ("fields", "token", "subject", "tenant"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD]
)
async def test_lets_in(fields: Fields, token: str | None, subject: str, tenant: str) -> None:
    principal = await call(gate(), fields, token)
    assert (principal.subject, principal.tenant) == (subject, tenant)
    assert principal.is_session is any(name == "Cookie" for name, _ in fields)


@pytest.mark.parametrize(("fields", "token", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
async def test_refuses(fields: Fields, token: str | None, reason: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await call(gate(), fields, token)
    assert caught.value.reason == reason


@pytest.mark.parametrize("fields", [row[1] for row in GOOD])
async def test_nobody_gets_in_where_nothing_is_configured(fields: Fields) -> None:
    with pytest.raises(Unauthenticated):
        await call(gate(ApiKeyStore(()), tokens=None, access=None), fields)


@pytest.mark.parametrize(
    ("fields", "reason"), [([bearer(JWT)], "token-unwanted"), ([assertion("aalice")], "assertion-unwanted")]
)
async def test_a_kind_that_is_not_configured_is_refused_beside_a_good_key(fields: Fields, reason: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await call(gate(tokens=None, access=None), [*fields, ("X-API-Key", ALICE)])
    assert caught.value.reason == reason


async def test_a_refused_session_brings_the_headers_that_end_it() -> None:
    with pytest.raises(SessionRefused) as caught:
        await call(gate(), [BAD_COOKIE, bearer(ALICE)])
    assert caught.value.headers == SESSIONS.burying


async def test_a_refused_key_brings_the_id_it_claims() -> None:
    with pytest.raises(KeyRefused) as caught:
        await call(gate(), [bearer(f"cg_{ALICE_ID}_{BOB[12:]}")])
    assert caught.value.key_id == ALICE_ID


async def test_a_malformed_credential_reaches_no_verifier() -> None:
    tokens = Verifier()
    with pytest.raises(Unauthenticated):
        await call(gate(tokens=tokens), [bearer(JWT), ("X-API-Key", "a b")])
    assert tokens.asked == []


async def test_two_proofs_permit_what_both_permit() -> None:
    principal = await call(gate(), [bearer(ADMIN), assertion("anarrow")])
    assert isinstance(principal, KeyPrincipal)
    assert (principal.role, principal.scopes) == (Role.USER, frozenset({Scope.JOBS_READ}))
    assert principal.expires_at_s is None
    both = await call(gate(), [cookie(ALICE), assertion("aalice")])
    assert (both.expires_at_s, both.is_session) == (NOW_S + 50, True)


async def test_a_failure_of_a_verifier_lets_nobody_in() -> None:
    class Broken:
        async def verify(self, token: str) -> Principal:
            raise RuntimeError("bug")

    with pytest.raises(RuntimeError):
        await call(gate(tokens=Broken()), [("X-API-Key", ALICE), bearer(JWT)])


def with_other_alice() -> ApiKeyStore:
    key = KeySettings(id=ALICE_ID, hash=hash_key(BOB), tenant="acme")
    return ApiKeyStore([key], lambda: NOW_S)


ALIVE: list[tuple[str, Fields, ApiKeyStore, float, bool]] = [
    ("key", [bearer(ALICE)], ring_without(), 0, True),
    ("revoked key", [bearer(ALICE)], ring_without(ALICE_ID), 0, False),
    ("changed key", [bearer(ALICE)], with_other_alice(), 0, False),
    ("another's key revoked", [bearer(ALICE)], ring_without(BOB_ID), 0, True),
    ("session", [cookie(ALICE)], ring_without(), 0, True),
    ("session of a revoked key", [cookie(ALICE)], ring_without(ALICE_ID), 0, False),
    ("session at its end", [cookie(ALICE)], ring_without(), 1000, False),
    ("token", [bearer("jalice")], ring_without(ALICE_ID), 0, True),
    ("token at its end", [bearer("jalice")], ring_without(), 60, False),
    ("key behind Access, key revoked", [bearer(ALICE), assertion("aalice")], ring_without(ALICE_ID), 0, False),
    ("key as parameter behind Access", [assertion("anarrow"), ("X-API-Key", ADMIN)], ring_without(), 0, True),
]


@pytest.mark.parametrize(("fields", "ring", "later_s", "expected"), [r[1:] for r in ALIVE], ids=[r[0] for r in ALIVE])
async def test_knows_who_is_still_welcome(fields: Fields, ring: ApiKeyStore, later_s: float, expected: bool) -> None:
    principal = await call(gate(), fields)
    assert gate(ring).is_alive(principal, NOW_S + later_s) is expected


async def test_an_ended_session_is_not_alive() -> None:
    authenticator = gate()
    principal = await call(authenticator, [cookie(ALICE)])
    assert isinstance(principal, KeyPrincipal)
    other = Sessions(b"s" * 32, lifetime_s=1000, is_secure=False, now=lambda: NOW_S)
    name, value = cookie(ALICE)
    ending = await call(Authenticator(ring_without(), other, None, None), [(name, value)])
    assert isinstance(ending, KeyPrincipal)
    fields = CIMultiDictProxy(CIMultiDict([(name, value)]))
    found = session_cookie(fields, other.cookie_name)
    assert found is not None
    other.end(found, ring_without())
    assert not Authenticator(ring_without(), other, None, None).is_alive(ending, NOW_S)
    assert authenticator.is_alive(principal, NOW_S)


@pytest.mark.parametrize("fields", [[bearer(ALICE)], [cookie(ALICE)]])
async def test_what_two_credentials_opened_ends_with_either(fields: Fields) -> None:
    principal = await call(gate(), [*fields, assertion("aalice")])
    assert gate().is_alive(principal, NOW_S)
    assert not gate(access=Verifier(abob=ACCESS.known["abob"])).is_alive(principal, NOW_S)


def test_a_token_dies_when_no_issuer_is_left() -> None:
    principal = Principal("carol", ACME)
    assert gate().is_alive(principal, NOW_S)
    assert not gate(tokens=None, access=None).is_alive(principal, NOW_S)
