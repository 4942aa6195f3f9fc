"""Tables of good and bad tokens, each with its answer, and that none of them gets into the log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policy.principal import ALL_SCOPES, Principal, Role, Scope
from proxy.auth import jwt_issuers as tokens_module
from proxy.auth.jwt_issuers import JwtIssuers
from proxy.config.identity import JwtSettings
from proxy.http.errors import Unauthenticated, refusal_for
from tests.proxy.issuers import Issuers, refused
from tests.proxy.jwks_server import Clock, JwksServer, signer
from tests.proxy.token_tables import BAD, EC, ED, GOOD, IDP, LEEWAY, MALLORY, NOW, PSS, RSA, TENANTS, claims


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


def parts_of(token: str) -> list[str]:
    return [part for part in {token, *token.split(".")} if len(part) >= 8]


@pytest.mark.parametrize(("make", "reason"), BAD)
async def test_bad_token_is_refused_and_not_logged(
    tokens: JwtIssuers, make: Callable[[], str], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await tokens.verify(RSA.sign(claims()))
    token = make()
    error = await refused(tokens, token)
    assert error.reason == reason
    refusal = refusal_for(error)
    assert refusal is not None
    assert refusal.status == 401
    told = refusal.message + refusal.details + repr(error) + caplog.text
    assert [part for part in parts_of(token) if part in told] == []
    assert "token refused: " in caplog.text


async def test_the_log_says_which_check_failed_once_a_minute(
    tokens: JwtIssuers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the usual level, and in words of the gate: no claim's value of the token's."""
    monkeypatch.setattr("proxy.auth.jwt_verification._told_at_s", {})
    caplog.set_level(logging.INFO)
    good = claims()
    no_slash = good["iss"].rstrip("/") if good["iss"].endswith("/") else good["iss"] + "/"
    for changed in ({"iss": no_slash}, {"iss": no_slash}, {"iss": "https://elsewhere.example"}):
        await refused(tokens, RSA.sign(claims(**changed)))
    await refused(tokens, RSA.sign(claims(tenant="nobodys-tenant")))
    await refused(tokens, RSA.sign(claims(tenant=5)))
    told = [record.getMessage() for record in caplog.records if "a token was refused" in record.getMessage()]
    assert len(told) == 4
    assert told[0].endswith("differ by a slash at the end")
    assert told[1].endswith("is that of no [jwt.*]")
    assert "has a value that leads to no tenant" in told[2]
    assert "is no text" in told[3]
    assert "nobodys-tenant" not in str(told)
    assert "elsewhere" not in str(told)


def test_table_of_bad_tokens_is_long_enough() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("name", GOOD)
async def test_good_token_is_a_principal(tokens: JwtIssuers, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = GOOD[name]()
    principal = await tokens.verify(token)
    assert principal.tenant == "acme"
    assert principal.role is Role.USER
    assert principal.scopes == ALL_SCOPES
    assert principal.expires_at_s == jwt.decode(token, options={"verify_signature": False})["exp"]
    assert not principal.is_session
    assert [part for part in parts_of(token) if part in caplog.text] == []


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS384", "PS512", "ES384", "ES512"])
async def test_longer_hashes_work_where_they_are_allowed(issuers: Issuers, algorithm: str) -> None:
    key = signer("long", algorithm)
    issuers.server.keys = [key.jwk()]
    tokens = issuers.build(algorithms=(algorithm,))
    assert (await tokens.verify(key.sign(claims()))).tenant == "acme"
    assert (await refused(tokens, RSA.sign(claims()))).reason == "token-invalid"
    await tokens.stop()


@pytest.mark.parametrize("allowed", ["EdDSA", "Ed25519"])
@pytest.mark.parametrize("of_key", ["EdDSA", "Ed25519"])
async def test_both_names_of_ed25519_are_one_algorithm(issuers: Issuers, allowed: str, of_key: str) -> None:
    key = signer("ed", "EdDSA")
    issuers.server.keys = [key.jwk(alg=of_key)]
    tokens = issuers.build(algorithms=(allowed,))
    for of_token in ("EdDSA", "Ed25519"):
        assert (await tokens.verify(key.sign(claims(), {"alg": of_token}))).tenant == "acme"
    await tokens.stop()


@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
async def test_neither_name_of_ed25519_is_taken_where_it_is_not_allowed(issuers: Issuers, name: str) -> None:
    tokens = issuers.build(algorithms=("RS256", "ES256"))
    assert (await refused(tokens, signer("ed", "EdDSA").sign(claims(), {"alg": name}))).reason == "token-invalid"
    await tokens.stop()


@cache
def _seen_token() -> str:
    """One for all examples: a signature has something random in it, and an example is to be played again."""
    return EC.sign(claims())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_no_character_of_a_seen_token_may_change(tmp_path: Path, data: st.DataObject) -> None:
    (tmp_path / "key.pem").write_bytes(EC.pem())
    settings = JwtSettings(issuer=IDP, audience="comfygate", public_key_file=Path("key.pem"))
    tokens = JwtIssuers(
        {"idp": settings}, known_tenants=TENANTS, resolve=tmp_path.joinpath, clock=Clock(NOW), monotonic=Clock()
    )
    token = _seen_token()
    await tokens.verify(token)
    # Not the last: of its bits some are filling, which mean nothing (RFC 4648, 3.5).
    index = data.draw(st.integers(0, len(token) - 2))
    character = data.draw(st.sampled_from("ABZabz019-_.=+/ \n\0é").filter(lambda one: one != token[index]))
    changed = data.draw(
        st.sampled_from([token[:index] + character + token[index + 1 :], token[:index], token[: index + 1] + token])
    )
    if changed != token:
        assert (await refused(tokens, changed)).reason in ("token-malformed", "token-invalid")


# Seen tokens.


async def test_seen_token_is_not_verified_again(
    tokens: JwtIssuers, issuers: Issuers, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = RSA.sign(claims())
    first = await tokens.verify(token)

    async def prove(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(tokens_module, "prove", prove)
    assert await tokens.verify(token) is first
    assert len(issuers.server.paths) == 1


async def test_seen_token_dies_at_its_exp_and_leeway(tokens: JwtIssuers, issuers: Issuers) -> None:
    token = RSA.sign(claims(exp=NOW + 10))
    await tokens.verify(token)
    issuers.clock.advance(10 + LEEWAY - 0.5)
    assert (await tokens.verify(token)).tenant == "acme"
    issuers.clock.advance(0.5)
    assert (await refused(tokens, token)).reason == "token-expired"


async def test_seen_token_dies_with_its_key(tokens: JwtIssuers, issuers: Issuers) -> None:
    lost, kept = RSA.sign(claims()), EC.sign(claims())
    await tokens.verify(lost)
    await tokens.verify(kept)
    issuers.server.keys = [EC.jwk()]
    await refused(tokens, MALLORY.sign(claims()))  # an unknown kid makes the gate look
    assert (await refused(tokens, lost)).reason == "token-invalid"
    assert (await tokens.verify(kept)).tenant == "acme"


async def test_seen_tokens_are_bounded_and_the_longest_unused_goes(tokens: JwtIssuers) -> None:
    first = ED.sign(claims(sub="first"))
    kept = await tokens.verify(first)
    for number in range(250):
        await tokens.verify(ED.sign(claims(sub=str(number))))
        assert await tokens.verify(first) is kept
    assert len(tokens._seen) == 100


async def test_bad_tokens_are_not_kept(tokens: JwtIssuers) -> None:
    for number in range(10):
        await refused(tokens, MALLORY.sign(claims(sub=str(number)), {"kid": "rsa"}))
    assert len(tokens._seen) == 0


# Who a token is.


async def principal_of(issuers: Issuers, token: str, **changes: Any) -> Principal:
    tokens = issuers.build(**changes)
    try:
        return await tokens.verify(token)
    finally:
        await tokens.stop()


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("org", {"org": "org-2"}),
        ("app_metadata.org", {"app_metadata": {"org": "org-2"}}),
        ("a.b.c", {"a": {"b": {"c": "org-2"}}}),
        ("https://example.com/org", {"https://example.com/org": "org-2"}),
    ],
)
async def test_tenant_is_found_by_its_path_and_mapped(issuers: Issuers, path: str, shape: dict[str, Any]) -> None:
    principal = await principal_of(
        issuers, RSA.sign(claims(**shape)), tenant_claim=path, tenants={"org-1": "acme", "org-2": "globex"}
    )
    assert principal.tenant == "globex"


async def test_name_of_a_tenant_is_no_name_of_the_table(issuers: Issuers) -> None:
    with pytest.raises(Unauthenticated, match="no tenant here"):
        await principal_of(issuers, RSA.sign(claims(tenant="acme")), tenants={"org-1": "acme"})


@pytest.mark.parametrize(
    ("value", "role"),
    [
        ("owner", Role.ADMIN),
        ("member", Role.USER),
        ("admin", Role.USER),
        ("owner member", Role.USER),
        (["member", "owner"], Role.ADMIN),
        (["member"], Role.USER),
        ([["owner"], {"owner": 1}, 7, None], Role.USER),
        ({"owner": True}, Role.USER),
        (True, Role.USER),
        (None, Role.USER),
        (..., Role.USER),
    ],
)
async def test_role_comes_from_the_map_only(issuers: Issuers, value: Any, role: Role) -> None:
    token = RSA.sign(claims(realm={"role": value} if value is not ... else ...))
    principal = await principal_of(
        issuers, token, role_claim="realm.role", roles={"owner": Role.ADMIN, "member": Role.USER}
    )
    assert principal.role is role


async def test_role_needs_a_map(issuers: Issuers) -> None:
    token = RSA.sign(claims(role="admin"))
    assert (await principal_of(issuers, token, role_claim="role")).role is Role.USER
    assert (await principal_of(issuers, token, roles={"admin": Role.ADMIN})).role is Role.USER


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        ("jobs:read files:read", {Scope.JOBS_READ, Scope.FILES_READ}),
        (["jobs:read", "files:read"], {Scope.JOBS_READ, Scope.FILES_READ}),
        ("openid profile jobs:submit", {Scope.JOBS_SUBMIT}),
        ("jobs:*  JOBS:READ", set()),
        (["jobs:read files:read", 7, None, ["jobs:read"]], set()),
        ("", set()),
        ([], set()),
        ({"jobs:read": True}, set()),
        (True, set()),
        (None, set()),
        (..., set()),
    ],
)
async def test_scopes_are_the_known_ones_of_the_claim(issuers: Issuers, value: Any, scopes: set[Scope]) -> None:
    principal = await principal_of(issuers, RSA.sign(claims(scope=value)), scope_claim="scope")
    assert principal.scopes == scopes


@pytest.mark.parametrize("sub", ["alice", "auth0|5f7c8ec7c33c6c004bbafe82", "a b", "ünï", "x" * 128])
async def test_subject_is_readable_where_it_can_be(tokens: JwtIssuers, sub: str) -> None:
    assert (await tokens.verify(RSA.sign(claims(sub=sub)))).subject == f"jwt:idp:{sub}"


async def test_subject_is_bounded_printable_and_nobody_elses(tokens: JwtIssuers) -> None:
    long = "x" * 129
    strange = [long, long + "x", "a\nb", "a\x1b[2J", "\u202eb", "\ud800", "sha256:" + "0" * 64]
    subjects = {(await tokens.verify(RSA.sign(claims(sub=sub)))).subject for sub in strange}
    # The subject of one as the sub of another is a third one.
    for subject in sorted(subjects):
        subjects.add((await tokens.verify(RSA.sign(claims(sub=subject.removeprefix("jwt:idp:"))))).subject)
    assert len(subjects) == 2 * len(strange)
    assert all(len(subject) < 200 and subject.isprintable() for subject in subjects)
