"""Browser sessions: the cookie, what it is bound to, and how it ends."""

from __future__ import annotations

import logging
import re
import stat
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from policy.principal import Role
from proxy.auth import sessions as module
from proxy.auth.api_keys import ApiKeyStore, Session, generate_key, hash_key
from proxy.auth.credentials import SessionCookie
from proxy.auth.sessions import (
    RevokedSessions,
    SessionRefused,
    Sessions,
    SessionStateError,
    load_secret,
    open_sessions,
)
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


@pytest.mark.parametrize("value", FORGED)
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


def test_too_many_ended_sessions_of_a_key_end_all_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENDED_PER_KEY", 3)
    clock = Clock()
    ring, sessions = ring_of(clock), make_sessions(clock)
    key = ring.verify(KEY)
    ended = [cookie_of(sessions.begin(key)) for _ in range(4)]
    bystander, neighbour = cookie_of(sessions.begin(key)), cookie_of(sessions.begin(ring.verify(OTHER)))
    for cookie in ended:
        sessions.end(cookie, ring)
    assert all(refused(sessions, cookie, ring) for cookie in [*ended, bystander])
    assert not refused(sessions, neighbour, ring)
    clock.now_s += 1
    assert not refused(sessions, cookie_of(sessions.begin(key)), ring)
    assert all(refused(sessions, cookie, ring) for cookie in ended)


async def test_no_restart_revives_an_ended_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    ring = ring_of(clock)
    settings = SessionSettings(lifetime=1000)
    first = open_sessions(settings, "https://gate.example", tmp_path / "state", clock)
    ended, kept = (cookie_of(first.begin(ring.verify(KEY))) for _ in range(2))
    first.end(ended, ring)
    await first.save()
    second = open_sessions(settings, "https://gate.example", tmp_path / "state", clock)
    assert refused(second, ended, ring)
    assert not refused(second, kept, ring)
    monkeypatch.setattr(module, "MAX_ENDED_PER_KEY", 0)
    second.end(kept, ring)
    await second.save()
    assert refused(open_sessions(settings, "https://gate.example", tmp_path / "state", clock), kept, ring)


def test_a_reload_revives_no_ended_session(tmp_path: Path) -> None:
    clock = Clock()
    ring, settings = ring_of(clock), SessionSettings(lifetime=1000)
    before = open_sessions(settings, None, tmp_path / "state", clock)
    cookie = cookie_of(before.begin(ring.verify(KEY)))
    after = open_sessions(settings, None, tmp_path / "state", clock, previous=before)
    assert not refused(after, cookie, ring)
    before.end(cookie, ring)
    assert refused(after, cookie, ring)
    elsewhere = open_sessions(settings, None, tmp_path / "other", clock, previous=before)
    assert elsewhere.ended is not before.ended


async def test_what_would_have_ended_by_now_is_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "ended"
    ended = RevokedSessions(file, clock)
    ended.add(KEY_ID, Session("a" * 32, NOW_S, NOW_S + 10))
    await ended.save()
    assert file.read_text() == f"session {KEY_ID} {'a' * 32} {NOW_S + 10}\n"
    clock.now_s += 10
    ended.add(OTHER_ID, Session("b" * 32, NOW_S, NOW_S + 100))
    await ended.save()
    assert file.read_text() == f"session {OTHER_ID} {'b' * 32} {NOW_S + 100}\n"
    clock.now_s += 100
    assert not RevokedSessions(file, clock).has(OTHER_ID, Session("b" * 32, NOW_S, NOW_S + 100))


def test_a_broken_line_of_the_ended_sessions_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "ended"
    file.write_bytes(b"\xff\nsession 12345678 " + b"a" * 32 + b" 1800000001\n")
    ended = RevokedSessions(file, Clock())
    assert ended.has("12345678", Session("a" * 32, 0, 0))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_disk_that_is_full_is_reported_and_the_session_has_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "replace_file", fail)
    ended = RevokedSessions(tmp_path / "ended", Clock())
    session = Session("a" * 32, NOW_S, NOW_S + 10)
    ended.add(KEY_ID, session)
    await ended.save()
    assert ended.has(KEY_ID, session)
    assert "No space left" in caplog.text


def test_ended_sessions_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "ended").mkdir()
    with pytest.raises(SessionStateError, match="cannot be read"):
        RevokedSessions(tmp_path / "ended")


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    state = tmp_path / "a" / "state"
    first = load_secret(None, state)
    assert len(first) >= 32
    assert load_secret(None, state) == first
    if sys.platform != "win32":
        assert stat.S_IMODE((state / "session.secret").stat().st_mode) == 0o600
        assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_two_gates_that_start_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    start = threading.Barrier(6)

    def load(_: int) -> bytes:
        start.wait(10)
        return load_secret(None, tmp_path / "state")

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(load, range(6)))) == 1


def test_the_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"x" * 40 + b"\n")
    assert load_secret(file, tmp_path / "state") == b"x" * 40
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), (b"short\n", "openssl rand"), (b" " * 64, "openssl")]
)
def test_a_bad_secret_file_stops_the_start(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SessionStateError, match=message):
        load_secret(file, tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_state_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(SessionStateError, match=r"secret_file"):
        load_secret(None, tmp_path / "state")


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
