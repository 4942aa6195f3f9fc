"""Sessions that are renewed, what is left of one that ended, and whose a browser's storage is."""

from __future__ import annotations

from multidict import CIMultiDict

from policy.principal import TenantId
from proxy.auth.credentials import read_credentials
from tests.proxy.auth.test_sessions import KEY, NOW_S, OTHER, Clock, cookie_of, make_sessions, refused, ring_of


def test_a_session_in_use_renews_until_its_login_is_too_old() -> None:
    clock = Clock()
    ring, sessions = ring_of(clock), make_sessions(clock, max_lifetime_s=2500)
    first = cookie = cookie_of(sessions.begin(ring.verify(KEY)))
    assert sessions.renewed(sessions.verify(cookie, ring)) == ()
    ends = []
    for _ in range(3):
        clock.now_s += 900
        if refused(sessions, cookie, ring):
            break
        if renewed := sessions.renewed(sessions.verify(cookie, ring)):
            cookie = cookie_of(renewed)
        ends.append(sessions.verify(cookie, ring).expires_at_s)
    assert ends == [NOW_S + 1900, NOW_S + 2500]
    assert refused(sessions, cookie, ring)
    assert refused(sessions, first, ring)


def test_a_renewed_session_is_the_same_one() -> None:
    clock = Clock()
    ring, sessions = ring_of(clock), make_sessions(clock, max_lifetime_s=2500)
    first = cookie_of(sessions.begin(ring.verify(KEY)))
    clock.now_s += 500
    second = cookie_of(sessions.renewed(sessions.verify(first, ring)))
    clock.now_s += 400
    third = cookie_of(sessions.renewed(sessions.verify(second, ring)))
    sessions.end(second, ring)
    assert all(refused(sessions, cookie, ring) for cookie in (first, second, third))
    # A copy that somebody renewed later than the browser did is not revived when the browser's own would have ended.
    clock.now_s = NOW_S + 1600
    sessions.end(cookie_of(sessions.begin(ring.verify(OTHER))), ring)
    assert refused(sessions, third, ring)


def test_only_a_session_renews() -> None:
    clock = Clock()
    assert make_sessions(clock).renewed(ring_of(clock).verify(KEY)) == ()


def test_an_ended_session_leaves_word_and_is_no_credential() -> None:
    clock = Clock()
    sessions = make_sessions(clock)
    ((_, line),) = sessions.burying
    headers = CIMultiDict({"Cookie": line.partition(";")[0]})
    assert read_credentials(headers, (), sessions.cookie_name) == ()
    assert sessions.missing(headers).reason == "session-ended"
    assert sessions.missing(headers).headers == ()
    assert sessions.missing(CIMultiDict()).reason == "credential-missing"


def test_below_a_prefix_the_cookie_is_sent_there_alone() -> None:
    clock = Clock()
    key = ring_of(clock).verify(KEY)
    ((_, value),) = make_sessions(clock, public_path="/comfy").begin(key)
    assert value.startswith("__Secure-comfygate_session-comfy=")
    assert "; Path=/comfy/; " in value
    ((_, value),) = make_sessions(clock, public_path="/comfy", is_secure=False).begin(key)
    assert value.startswith("comfygate_session-comfy=")


def test_whose_the_storage_of_a_browser_is() -> None:
    sessions, acme, beta = make_sessions(Clock()), TenantId("acme"), TenantId("beta")
    ((_, value),) = sessions.storage.mark(acme)
    assert "acme" not in value
    headers = CIMultiDict({"Cookie": value.partition(";")[0]})
    assert sessions.storage.is_of(acme, headers)
    assert not sessions.storage.is_of(beta, headers)
    assert not sessions.storage.is_of(acme, CIMultiDict())
    assert not make_sessions(Clock(), secret=b"t" * 32).storage.is_of(acme, headers)
