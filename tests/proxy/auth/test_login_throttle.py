"""Failures are counted, comings without a credential are not, and a good credential is never slowed."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict

from policy.principal import Principal, TenantId
from proxy.auth.login_throttle import MISSING, LoginThrottle
from proxy.auth.sessions import SessionRefused
from proxy.http.errors import LimitExceeded, Unauthenticated
from proxy.http.request import Request

ALICE = Principal("a", TenantId("alice"))


class Authenticator:
    def __init__(self, error: Unauthenticated | None = None) -> None:
        self.error = error
        self.asked: list[Any] = []

    async def authenticate(self, headers: Any, query: Any) -> Principal:
        self.asked.append((headers, query))
        if self.error is not None:
            raise self.error
        return ALICE


class FailedLogins:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.failures: list[tuple[str, str | None]] = []

    async def failed(self, address: str, key_id: str | None) -> None:
        self.failures.append((address, key_id))
        if self.error is not None:
            raise self.error


class BadKey(Unauthenticated):
    key_id = "7f3a9c21"


async def authenticate(
    authenticator: Authenticator, logins: FailedLogins, headers: Any = None, query: Any = ()
) -> Principal:
    fields = CIMultiDict() if headers is None else headers
    request = Request("GET", "/", fields, None)  # type: ignore[arg-type]
    return await LoginThrottle(logins).authenticate(authenticator, request, query, "192.0.2.1")  # type: ignore[arg-type]


async def test_a_good_credential_passes_uncounted() -> None:
    authenticator, logins = Authenticator(), FailedLogins(LimitExceeded("slow down", limit="1", retry_after_s=1))
    headers, query = CIMultiDict({"X-API-Key": "k"}), (("a", "1"),)
    assert await authenticate(authenticator, logins, headers, query) is ALICE
    assert authenticator.asked == [(headers, query)]
    assert logins.failures == []


async def test_a_bad_credential_is_counted_by_address_and_key() -> None:
    error, logins = BadKey("no", reason="key-unknown"), FailedLogins()
    with pytest.raises(Unauthenticated) as caught:
        await authenticate(Authenticator(error), logins)
    assert caught.value is error
    assert logins.failures == [("192.0.2.1", "7f3a9c21")]


async def test_no_credential_is_no_guess() -> None:
    logins = FailedLogins()
    with pytest.raises(Unauthenticated) as caught:
        await authenticate(Authenticator(Unauthenticated()), logins)
    assert caught.value.reason == MISSING
    assert logins.failures == []


async def test_an_ended_session_is_no_guess() -> None:
    """A forgotten tab of the web UI connects again and again: its person must still come to the login."""
    logins = FailedLogins(LimitExceeded("slow down", limit="1", retry_after_s=1))
    with pytest.raises(SessionRefused):
        await authenticate(Authenticator(SessionRefused(())), logins)
    assert logins.failures == []


async def test_who_guesses_too_often_is_stopped() -> None:
    stop = LimitExceeded("slow down", limit="1", retry_after_s=1)
    with pytest.raises(LimitExceeded) as caught:
        await authenticate(Authenticator(BadKey("no", reason="key-unknown")), FailedLogins(stop))
    assert caught.value is stop
