"""Browser sessions: the cookie, what it is bound to, and how it ends."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from policy.principal import Role
from proxy.auth.api_keys import ApiKeyStore, generate_key, hash_key
from proxy.auth.credentials import SessionCookie
from proxy.auth.sessions import SessionRefused, Sessions, open_sessions
from proxy.config.identity import KeySettings, SessionSettings

SECRET = b"s" * 32
KEY_ID, KEY = generate_key()
OTHER_ID, OTHER = generate_key()
NOW_S = 1_800_000_000


class Clock:
    def __init__(self, now_s: float = NOW_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def ring_of(clock: Clock, text: str = KEY, **more: Any) -> ApiKeyStore:
    key = {"id": KEY_ID, "hash": hash_key(text), "tenant": "acme", **more}
    other = {"id": OTHER_ID, "hash": hash_key(OTHER), "tenant": "beta"}
    return ApiKeyStore([KeySettings.model_validate(key), KeySettings.model_validate(other)], clock)


def make_sessions(
    clock: Clock, *, secret: bytes = SECRET, is_secure: bool = True, lifetime_s: float = 1000, **more: Any
) -> Sessions:
    return Sessions(secret, lifetime_s=lifetime_s, is_secure=is_secure, now=clock, **more)


def cookie_of(headers: tuple[tuple[str, str], ...]) -> SessionCookie:
    ((name, value),) = headers
    assert name == "Set-Cookie"
    return SessionCookie(value.partition(";")[0].partition("=")[2])


def refused(sessions: Sessions, cookie: SessionCookie, ring: ApiKeyStore) -> bool:
    try:
        sessions.verify(cookie, ring)
    except SessionRefused as error:
        return (error.reason, error.headers) == ("session-ended", sessions.burying)
    return False


def test_a_session_is_its_key_until_it_ends() -> None:
    clock = Clock()
    ring, sessions = ring_of(clock, role="admin", scopes=["jobs:read"]), make_sessions(clock)
    key = ring.verify(KEY)
    principal = sessions.verify(cookie_of(sessions.begin(key)), ring)
    assert (principal.subject, principal.tenant, principal.role) == (KEY_ID, "acme", Role.ADMIN)
    assert principal.scopes == key.scopes
    assert principal.is_session
    assert principal.expires_at_s == NOW_S + 1000


@pytest.mark.parametrize(
    ("is_secure", "expected"),
    [
        (True, r"__Host-comfygate_session=[0-9a-f.]+; Max-Age=2593000; Path=/; HttpOnly; SameSite=Lax; Secure"),
        (False, r"comfygate_session=[0-9a-f.]+; Max-Age=2593000; Path=/; HttpOnly; SameSite=Lax"),
    ],
)
def test_the_cookie_has_all_its_flags(is_secure: bool, expected: str) -> None:
    clock = Clock()
    sessions = make_sessions(clock, is_secure=is_secure)
    ((_, value),) = sessions.begin(ring_of(clock).verify(KEY))
    assert re.fullmatch(expected, value)
    assert KEY not in value
    assert hash_key(KEY).removeprefix("sha256:") not in value
    ((_, dead),) = sessions.expiring
    assert dead.startswith(f"{sessions.cookie_name}=; Max-Age=0; ")
    assert dead.split("; ")[3:] == value.split("; ")[2:]


def test_every_login_gets_a_new_session() -> None:
    clock = Clock()
    key, sessions = ring_of(clock).verify(KEY), make_sessions(clock)
    assert len({cookie_of(sessions.begin(key)).value for _ in range(50)}) == 50


def test_every_changed_character_is_refused() -> None:
    clock = Clock()
    ring, sessions = ring_of(clock), make_sessions(clock)
    good = cookie_of(sessions.begin(ring.verify(KEY))).value or ""
    for place, character in enumerate(good):
        for other in {"0", "1", "a", ".", "A", "é"} - {character}:
            assert refused(sessions, SessionCookie(good[:place] + other + good[place + 1 :]), ring), (place, other)


FORGED = [None, "", ".", "x", "1.a.b.c.d.e", "..", "1." * 500, "1." + "0" * 32 + f".{KEY_ID}.1.2." + "0" * 64, KEY]


@pytest.mark.parametrize("value", FORGED, ids=range(len(FORGED)))
def test_what_was_never_signed_is_refused(value: str | None) -> None:
    clock = Clock()
    assert refused(make_sessions(clock), SessionCookie(value), ring_of(clock))


def test_a_session_of_one_key_is_none_of_another() -> None:
    clock = Clock()
    ring, sessions = ring_of(clock), make_sessions(clock)
    good = cookie_of(sessions.begin(ring.verify(KEY))).value or ""
    assert refused(sessions, SessionCookie(good.replace(KEY_ID, OTHER_ID)), ring)


def test_another_secret_signs_nothing_here() -> None:
    clock = Clock()
    ring = ring_of(clock)
    cookie = cookie_of(make_sessions(clock, secret=b"t" * 32).begin(ring.verify(KEY)))
    assert refused(make_sessions(clock), cookie, ring)


def test_a_session_dies_with_its_key() -> None:
    clock = Clock()
    ring, sessions = ring_of(clock), make_sessions(clock)
    cookie = cookie_of(sessions.begin(ring.verify(KEY)))
    assert refused(sessions, cookie, ApiKeyStore((), clock))
    assert refused(sessions, cookie, ring_of(clock, f"cg_{KEY_ID}_{OTHER[12:]}"))
    assert refused(sessions, cookie, ring_of(clock, expires=datetime.fromtimestamp(NOW_S, UTC)))
    assert refused(sessions, cookie, ring_of(clock, expires=datetime.fromtimestamp(0, UTC)))
    assert not refused(sessions, cookie, ring)


def test_a_session_takes_over_what_its_key_may_do_now() -> None:
    clock = Clock()
    ring, sessions = ring_of(clock, role="admin"), make_sessions(clock)
    cookie = cookie_of(sessions.begin(ring.verify(KEY)))
    assert sessions.verify(cookie, ring_of(clock, role="user")).role is Role.USER


def test_a_session_ends_by_time() -> None:
    clock = Clock()
    ring, sessions = ring_of(clock), make_sessions(clock)
    cookie = cookie_of(sessions.begin(ring.verify(KEY)))
    clock.now_s += 999
    assert not refused(sessions, cookie, ring)
    clock.now_s += 1
    assert refused(sessions, cookie, ring)


def test_a_shorter_lifetime_holds_for_old_sessions_and_a_longer_one_does_not() -> None:
    clock = Clock()
    ring = ring_of(clock)
    cookie = cookie_of(make_sessions(clock).begin(ring.verify(KEY)))
    clock.now_s += 500
    assert refused(make_sessions(clock, lifetime_s=400), cookie, ring)
    clock.now_s += 500
    assert refused(make_sessions(clock, lifetime_s=4000), cookie, ring)


def test_what_a_session_has_open_lives_as_long_as_its_cookie_would_be_taken() -> None:
    clock = Clock()
    ring, before = ring_of(clock), make_sessions(clock)
    principal = before.verify(cookie_of(before.begin(ring.verify(KEY))), ring)
    assert make_sessions(clock).is_alive(principal)
    assert not make_sessions(clock, secret=b"t" * 32).is_alive(principal), "every cookie of before is refused"
    clock.now_s += 500
    assert make_sessions(clock).is_alive(principal)
    assert not make_sessions(clock, lifetime_s=400).is_alive(principal)


def test_the_browser_keeps_the_cookie_longer_than_the_session_and_it_is_good_no_longer_than_the_key() -> None:
    clock = Clock()
    ring, sessions = ring_of(clock, expires=datetime.fromtimestamp(NOW_S + 60, UTC)), make_sessions(clock)
    ((_, value),) = headers = sessions.begin(ring.verify(KEY))
    assert f"; Max-Age={1000 + 30 * 86400};" in value
    assert sessions.verify(cookie_of(headers), ring).expires_at_s == NOW_S + 60
    clock.now_s += 60
    assert refused(sessions, cookie_of(headers), ring)


def test_a_session_that_was_ended_is_refused_and_others_go_on() -> None:
    clock = Clock()
    ring, sessions = ring_of(clock), make_sessions(clock)
    key = ring.verify(KEY)
    mine, yours = cookie_of(sessions.begin(key)), cookie_of(sessions.begin(key))
    principal = sessions.verify(mine, ring)
    assert sessions.is_alive(principal)
    assert sessions.end(mine, ring) == principal
    assert not sessions.is_alive(principal)
    assert refused(sessions, mine, ring)
    assert sessions.end(mine, ring) is None
    assert not refused(sessions, yours, ring)
    assert sessions.is_alive(key)


def test_a_reload_revives_no_ended_session(tmp_path: Path) -> None:
    clock = Clock()
    ring, settings = ring_of(clock), SessionSettings(lifetime=1000)
    before = open_sessions(settings, None, tmp_path / "state", clock)
    cookie = cookie_of(before.begin(ring.verify(KEY)))
    after = open_sessions(settings, None, tmp_path / "state", clock, previous=before)
    assert not refused(after, cookie, ring)
    before.end(cookie, ring)
    assert refused(after, cookie, ring)


def test_a_short_secret_is_no_secret() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Sessions(b"x" * 31, lifetime_s=1, is_secure=False)


@pytest.mark.parametrize(
    ("public_url", "name"),
    [
        (None, "comfygate_session"),
        ("http://gate.lan", "comfygate_session"),
        ("https://gate.example", "__Host-comfygate_session"),
    ],
)
def test_the_cookie_is_secure_where_the_gate_is_reached_by_https(
    tmp_path: Path, public_url: str | None, name: str
) -> None:
    assert open_sessions(SessionSettings(), public_url, tmp_path).cookie_name == name
