"""Whoever comes again with the very same credential is known at once; whatever differs is read and verified."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from policy.principal import Principal
from proxy.auth.api_keys import ApiKeyStore, generate_key, hash_key
from proxy.auth.authenticator import Authenticator
from proxy.auth.credentials import SessionCookie
from proxy.auth.proofs import MAX_PROOFS, ProofCache
from proxy.auth.sessions import Sessions
from proxy.config.identity import KeySettings
from proxy.http.errors import Unauthenticated
from tests.proxy.auth import test_authenticator as cases
from tests.proxy.auth.test_authenticator import ALICE, BOB, Fields, bearer, gate
from tests.proxy.conftest import Clock

CALLER = cases.ring_without().verify(ALICE)
Query = tuple[tuple[str, str], ...]


def headers_of(fields: Fields) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(fields))


def query_of(token: str | None) -> Query:
    return () if token is None else (("token", token),)


async def experienced() -> Authenticator:
    """It has let in everybody of GOOD."""
    authenticator = gate()
    for _, fields, token, *_ in cases.GOOD:
        await authenticator.authenticate(headers_of(fields), query_of(token))
    return authenticator


@pytest.mark.parametrize(("fields", "token"), [row[1:3] for row in cases.GOOD], ids=[row[0] for row in cases.GOOD])
async def test_is_remembered_as_it_was_proven(fields: Fields, token: str | None) -> None:
    authenticator = await experienced()
    known = authenticator.recall(headers_of(fields), query_of(token), {})
    proven = await authenticator.authenticate(headers_of(fields), query_of(token))
    assert known == (proven if token is None else None), "what stands in an address is not kept"


@pytest.mark.parametrize(("fields", "token"), [row[1:3] for row in cases.BAD], ids=[row[0] for row in cases.BAD])
async def test_nobody_bad_is_known(fields: Fields, token: str | None) -> None:
    authenticator = await experienced()
    assert authenticator.recall(headers_of(fields), query_of(token), {}) is None
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(headers_of(fields), query_of(token))


OTHERS: list[tuple[str, Fields, Query]] = [
    ("its last character", [bearer(ALICE[:-1] + ("B" if ALICE[-1] == "A" else "A"))], ()),
    ("one more character", [bearer(ALICE + "A")], ()),
    ("another scheme", [("Authorization", f"Token {ALICE}")], ()),
    ("no scheme", [("Authorization", ALICE)], ()),
    ("the whole field as a key", [("X-API-Key", f"Bearer {ALICE}")], ()),
    ("the key as an assertion", [("Cf-Access-Jwt-Assertion", f"Bearer {ALICE}")], ()),
    ("the same field again", [bearer(ALICE), bearer(ALICE)], ()),
    ("another's beside it", [bearer(ALICE), bearer(BOB)], ()),
    ("a cookie beside it", [bearer(ALICE), ("Cookie", "comfygate_session=1.forged")], ()),
    ("a token beside it", [bearer(ALICE)], (("a", "b"), ("token", BOB))),
    ("an empty token beside it", [bearer(ALICE)], (("token", ""),)),
    ("nothing", [], ()),
]


@pytest.mark.parametrize(("fields", "query"), [row[1:] for row in OTHERS], ids=[row[0] for row in OTHERS])
async def test_whatever_differs_is_verified(fields: Fields, query: Query) -> None:
    authenticator = await experienced()
    assert authenticator.recall(headers_of([bearer(ALICE)]), (("a", "b"),), {}) is not None
    assert authenticator.recall(headers_of(fields), query, {}) is None


async def test_an_expired_key_is_not_known() -> None:
    clock, (key_id, key) = Clock(), generate_key()
    ends = datetime.fromtimestamp(clock.now_s + 10, UTC)
    row = KeySettings.model_validate({"id": key_id, "hash": hash_key(key), "tenant": "acme", "expires": ends})
    authenticator = Authenticator(ApiKeyStore([row], clock), cases.SESSIONS, None, None)
    fields = headers_of([bearer(key)])
    await authenticator.authenticate(fields, ())
    clock.pass_s(9.9)
    assert authenticator.recall(fields, (), {}) is not None
    clock.pass_s(0.1)
    assert authenticator.recall(fields, (), {}) is None
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(fields, ())


def opened(clock: Clock) -> tuple[Authenticator, Sessions, str]:
    """A gate with a session of Alice's, and its cookie's value."""
    sessions = Sessions(b"s" * 32, lifetime_s=1000, is_secure=False, now=clock)
    ring = cases.ring_without()
    ((_, line),) = sessions.begin(ring.verify(ALICE))
    return Authenticator(ring, sessions, None, None), sessions, line.partition(";")[0].partition("=")[2]


async def test_an_ended_session_is_not_known() -> None:
    authenticator, sessions, value = opened(Clock(cases.NOW_S))
    fields = headers_of([("Cookie", f"theme=dark; {sessions.cookie_name}={value}")])
    await authenticator.authenticate(fields, ())
    assert authenticator.recall(fields, (), {}) is not None
    assert sessions.end(SessionCookie(value), cases.ring_without()) is not None
    assert authenticator.recall(fields, (), {}) is None
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(fields, ())


async def test_a_session_is_known_until_its_end() -> None:
    clock = Clock(cases.NOW_S)
    authenticator, sessions, value = opened(clock)
    fields = headers_of([("Cookie", f"{sessions.cookie_name}={value}")])
    await authenticator.authenticate(fields, ())
    clock.pass_s(999)
    assert authenticator.recall(fields, (), {}) is not None
    clock.pass_s(1)
    assert authenticator.recall(fields, (), {}) is None


async def test_a_new_configuration_knows_nobody() -> None:
    await experienced()
    assert gate().recall(headers_of([bearer(ALICE)]), (), {}) is None


async def test_each_of_two_credentials_has_to_hold() -> None:
    tokens = cases.Verifier(**cases.TOKENS.known)
    clock, (key_id, key) = Clock(), generate_key()
    ends = datetime.fromtimestamp(clock.now_s + 10, UTC)
    row = KeySettings.model_validate({"id": key_id, "hash": hash_key(key), "tenant": "acme", "expires": ends})
    tokens.known["jmine"] = Principal(key_id, cases.ACME)
    authenticator = Authenticator(ApiKeyStore([row], clock), cases.SESSIONS, tokens, None)
    fields = headers_of([bearer("jmine"), ("X-API-Key", key)])
    await authenticator.authenticate(fields, ())
    assert authenticator.recall(fields, (), {}) is not None
    known = tokens.known.pop("jmine")
    assert authenticator.recall(fields, (), {}) is None
    tokens.known["jmine"] = known
    assert authenticator.recall(fields, (), {}) is not None
    clock.pass_s(10)
    assert authenticator.recall(fields, (), {}) is None


def test_memory_is_bounded_however_a_key_is_spelled() -> None:
    proofs = ProofCache()
    for number in range(3 * MAX_PROOFS):
        proofs.keep(headers_of([("Authorization", f"Basic {number}")]), (), CALLER, [])
        assert len(proofs) <= MAX_PROOFS
    assert proofs.find(headers_of([("Authorization", f"Basic {number}")]), (), {}) is CALLER


def test_characters_that_are_no_text_are_a_field_like_others() -> None:
    """Bytes that are no UTF-8 come as lone surrogates."""
    proofs = ProofCache()
    proofs.keep(headers_of([("Cookie", "a=\udcff")]), (), CALLER, [])
    assert proofs.find(headers_of([("Cookie", "a=\udcff")]), (), {}) is CALLER
    assert proofs.find(headers_of([("Cookie", "a=\udcfe")]), (), {}) is None


@pytest.mark.parametrize(
    "fields",
    [
        [("Cookie", "a=b"), ("Authorization", "x"), ("X-API-Key", "y")],
        [("Cookie", "a=b"), ("Authorization", "y"), ("X-API-Key", "x")],
        [("Cookie", "a=b"), ("X-API-Key", "x")],
        [("Cookie", "a=bx")],
        [("Cookie", "a=bax")],
    ],
)
def test_the_same_characters_in_other_fields_are_others(fields: Fields) -> None:
    proofs = ProofCache()
    proofs.keep(headers_of([("Cookie", "a=b"), ("Authorization", "x")]), (), CALLER, [])
    assert proofs.find(headers_of(fields), (), {}) is None
    proofs.keep(headers_of(fields), (), CALLER, [])
    assert len(proofs) == 2


async def test_the_next_request_of_a_connection_is_known_by_what_was_worked_out_of_the_same_fields() -> None:
    authenticator, derived = await experienced(), dict[str, Any]()
    fields = headers_of([bearer(ALICE)])
    known = authenticator.recall(fields, (), derived)
    assert known is not None
    assert ALICE not in str(derived)
    assert authenticator.recall(fields, (), derived) is known
    assert authenticator.recall(fields, (("token", BOB),), derived) is None
    assert gate().recall(fields, (), derived) is None, "a reload forgets"
    assert gate(cases.ring_without(cases.ALICE_ID)).recall(fields, (), derived) is None
