"""API keys: their form, and who gets in with which."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from policy.principal import ALL_SCOPES, Role, Scope
from proxy.auth import api_keys
from proxy.auth.api_keys import (
    ApiKeyStore,
    KeyPrincipal,
    Session,
    as_session_principal,
    generate_key,
    hash_key,
    key_id_of,
)
from proxy.config.identity import KeySettings
from proxy.http.errors import Unauthenticated

NOW_S = 1_800_000_000.0


def settings_of(key_id: str, text: str, **more: Any) -> KeySettings:
    return KeySettings.model_validate({"id": key_id, "hash": hash_key(text), "tenant": "acme", **more})


def make_ring(*keys: KeySettings, now_s: float = NOW_S) -> ApiKeyStore:
    return ApiKeyStore(keys, lambda: now_s)


def test_a_key_holds_256_bits_and_its_id() -> None:
    key_id, text = generate_key()
    assert re.fullmatch(r"cg_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", text)
    assert text[3:11] == key_id == key_id_of(text)
    assert len({generate_key()[1] for _ in range(100)}) == 100


def test_the_hash_is_the_sha256_of_the_whole_key() -> None:
    _, text = generate_key()
    assert hash_key(text) == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_a_key_gives_its_tenant_role_and_scopes() -> None:
    key_id, text = generate_key()
    principal = make_ring(settings_of(key_id, text, role="admin", scopes=["jobs:read"])).verify(text)
    assert (principal.subject, principal.tenant) == (key_id, "acme")
    assert principal.role is Role.ADMIN
    assert principal.scopes == {Scope.JOBS_READ}
    assert principal.expires_at_s is None
    assert not principal.is_session
    plain_id, plain = generate_key()
    assert make_ring(settings_of(plain_id, plain)).verify(plain).scopes == ALL_SCOPES


def test_nobody_gets_in_when_no_key_is_configured() -> None:
    with pytest.raises(Unauthenticated):
        make_ring().verify(generate_key()[1])


KEY_ID, KEY = generate_key()
OTHER_ID, OTHER = generate_key()
BAD = [
    ("", "key-malformed"),
    ("cg_", "key-malformed"),
    (KEY[:-1], "key-malformed"),
    (KEY + "A", "key-malformed"),
    (KEY + "\n", "key-malformed"),
    (" " + KEY, "key-malformed"),
    (KEY.upper(), "key-malformed"),
    (KEY.replace("cg_", "CG_"), "key-malformed"),
    (KEY[:12], "key-malformed"),
    (KEY[:-1] + "=", "key-malformed"),
    (KEY[:-1] + "é", "key-malformed"),
    (KEY[:11] + "\u0661" + KEY[12:], "key-malformed"),
    (hash_key(KEY), "key-malformed"),
    (hash_key(KEY).removeprefix("sha256:"), "key-malformed"),
    (f"cg_{KEY_ID}_{hash_key(KEY)[-43:]}", "key-unknown"),
    (KEY[:-1] + ("A" if KEY[-1] != "A" else "B"), "key-unknown"),
    (f"cg_{KEY_ID}_{OTHER[12:]}", "key-unknown"),
    (f"cg_{OTHER_ID}_{KEY[12:]}", "key-unknown"),
    (f"cg_{'0' * 8}_{KEY[12:]}", "key-unknown"),
    (OTHER, "key-unknown"),
]


@pytest.mark.parametrize(("text", "reason"), BAD, ids=range(len(BAD)))
def test_refuses_every_other_text(text: str, reason: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        make_ring(settings_of(KEY_ID, KEY)).verify(text)
    assert caught.value.reason == reason
    assert len(text) < 9 or text not in caught.value.message


def test_an_unknown_id_and_a_wrong_secret_read_the_same() -> None:
    ring = make_ring(settings_of(KEY_ID, KEY))
    messages = set()
    for text in (f"cg_{KEY_ID}_{OTHER[12:]}", OTHER):
        with pytest.raises(Unauthenticated) as caught:
            ring.verify(text)
        messages.add((caught.value.message, caught.value.reason))
    assert len(messages) == 1


def test_an_unknown_id_costs_one_comparison_of_digests_as_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr("hmac.compare_digest", counted)
    ring = make_ring(settings_of(KEY_ID, KEY))
    for text in (f"cg_{KEY_ID}_{OTHER[12:]}", OTHER):
        with pytest.raises(Unauthenticated):
            ring.verify(text)
    assert compared == [(32, 32), (32, 32)]


@pytest.mark.parametrize(("offset_s", "is_good"), [(-1, True), (0, False), (1, False)])
def test_a_key_ends_at_its_expiry(offset_s: float, is_good: bool) -> None:
    ends = datetime.fromtimestamp(NOW_S, UTC)
    ring = make_ring(settings_of(KEY_ID, KEY, expires=ends), now_s=NOW_S + offset_s)
    if is_good:
        assert ring.verify(KEY).expires_at_s == NOW_S
        return
    with pytest.raises(Unauthenticated) as caught:
        ring.verify(KEY)
    assert caught.value.reason == "key-expired"


def test_an_expired_key_is_not_told_apart_without_its_secret() -> None:
    ring = make_ring(settings_of(KEY_ID, KEY, expires=datetime.fromtimestamp(1, UTC)))
    with pytest.raises(Unauthenticated) as caught:
        ring.verify(f"cg_{KEY_ID}_{OTHER[12:]}")
    assert caught.value.reason == "key-unknown"


def test_a_refusal_tells_the_claimed_id_for_counting() -> None:
    ring = make_ring()
    for text, claimed in ((KEY, KEY_ID), ("cg_x", None)):
        with pytest.raises(api_keys.KeyRefused) as caught:
            ring.verify(text)
        assert caught.value.key_id == claimed


ALIVE = [
    ("the same", {}, KEY, NOW_S, True),
    ("gone", None, KEY, NOW_S, False),
    ("another key under the id", {}, f"cg_{KEY_ID}_{OTHER[12:]}", NOW_S, False),
    ("another tenant", {"tenant": "other"}, KEY, NOW_S, False),
    ("no admin any more", {"role": "user"}, KEY, NOW_S, False),
    ("narrowed", {"scopes": ["jobs:read"]}, KEY, NOW_S, False),
    ("expired", {"expires": datetime.fromtimestamp(NOW_S, UTC)}, KEY, NOW_S, False),
    ("about to expire", {"expires": datetime.fromtimestamp(NOW_S, UTC)}, KEY, NOW_S - 1, True),
]


@pytest.mark.parametrize(("change", "text", "now_s", "expected"), [row[1:] for row in ALIVE], ids=[r[0] for r in ALIVE])
def test_a_caller_lives_as_long_as_its_key(
    change: dict[str, Any] | None, text: str, now_s: float, expected: bool
) -> None:
    before = make_ring(settings_of(KEY_ID, KEY, role="admin")).verify(KEY)
    after = () if change is None else (settings_of(KEY_ID, text, **{"role": "admin", **change}),)
    assert make_ring(*after).is_alive(before, now_s) is expected


def test_a_caller_outlives_a_key_that_got_wider() -> None:
    before = make_ring(settings_of(KEY_ID, KEY, scopes=["jobs:read"])).verify(KEY)
    assert make_ring(settings_of(KEY_ID, KEY, role="admin")).is_alive(before, NOW_S)


def test_a_session_never_outlives_its_key() -> None:
    session = Session("ab", 0, 50)
    forever = make_ring(settings_of(KEY_ID, KEY)).verify(KEY)
    assert as_session_principal(forever, session, 50.0).expires_at_s == 50.0
    ending = make_ring(settings_of(KEY_ID, KEY, expires=datetime.fromtimestamp(NOW_S + 9, UTC))).verify(KEY)
    inside = as_session_principal(ending, session, NOW_S + 50)
    assert (inside.expires_at_s, inside.is_session, inside.session) == (NOW_S + 9, True, session)


def test_a_principal_does_not_show_its_digest() -> None:
    principal = make_ring(settings_of(KEY_ID, KEY)).verify(KEY)
    assert isinstance(principal, KeyPrincipal)
    assert "digest" not in repr(principal)
