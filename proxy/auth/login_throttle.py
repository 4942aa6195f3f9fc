"""Lets a request in, or counts its failure: authentication, the origin of browsers, and the slowing down of those who guess."""

from __future__ import annotations

from typing import Final, Protocol

from policy.principal import Principal
from proxy.auth.authenticator import Authenticator
from proxy.http.errors import Unauthenticated
from proxy.http.request import Request

MISSING: Final = "credential-missing"
UNCOUNTED: Final = frozenset({MISSING, "session-ended"})
"""Reasons of a failure that is no guess, so that it is not throttled: a forgotten tab of the web UI comes back with its ended session several times
a second, and whoever sits there may log in all the same; and nobody guesses a signature of 256 bits."""


class LoginCounter(Protocol):
    async def failed(self, address: str, key_id: str | None) -> None:
        """Counts a failed login: returns after a delay that grows, or raises LimitExceeded."""
        ...


class LoginThrottle:
    """logins: counts the failures of all configurations together."""

    def __init__(self, logins: LoginCounter) -> None:
        self._logins = logins

    async def authenticate(
        self,
        authenticator: Authenticator,
        request: Request,
        query: tuple[tuple[str, str], ...],
        address: str,
    ) -> Principal:
        """The proven caller. Raises Unauthenticated; LimitExceeded for an address that failed too often.

        A good credential is never slowed: an office or a tunnel shares one address with whoever guesses beside it.
        """
        try:
            return await authenticator.authenticate(request.headers, query)
        except Unauthenticated as error:
            await self.failed(request, address, error)
            raise

    async def failed(self, request: Request, address: str, error: Unauthenticated) -> None:
        """Counts a failure that may be a guess. Raises LimitExceeded."""
        if error.reason not in UNCOUNTED:
            request.is_refused = True
            await self._logins.failed(address, error.key_id)
