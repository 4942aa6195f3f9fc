"""Which web pages may speak to the gate with a credential that a browser adds by itself, and the CORS answers for those that bring keys. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from multidict import MultiMapping, istr

from policy.call import ClientReply
from policy.principal import Principal
from policy.violation import Reason, Violation
from proxy.auth.credentials import ASSERTION_HEADER, AUTHORIZATION

_ORIGIN: Final = istr("Origin")
_HOST: Final = istr("Host")
_FETCH_SITE: Final = istr("Sec-Fetch-Site")
_REQUESTED_METHOD: Final = istr("Access-Control-Request-Method")

# RFC 9110, 9.2.1. Anything else may change state.
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PORT: Final = re.compile(r":[0-9]*$")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_PREFLIGHT_LIFETIME_S: Final = 600
_ALLOWED_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
_ALLOWED_HEADERS: Final = (
    "Authorization, X-API-Key, Content-Type, Comfy-User, Comfy-Usage-Source, Range, If-Range, If-None-Match, "
    "If-Modified-Since, Cache-Control, X-Request-Id, Idempotency-Key, Prefer, Webhook-URL"
)
_EXPOSED_HEADERS: Final = (
    "Content-Disposition, Content-Length, Content-Range, ETag, Idempotency-Replayed, RateLimit, RateLimit-Policy, "
    "Retry-After, X-Request-Id"
)


class CsrfCors:
    """public_url: the gate's origin as browsers see it, None when it is not known. cors_origins: those of other web apps that are welcome."""

    def __init__(self, public_url: str | None, cors_origins: Iterable[str] = ()) -> None:
        self._public = _canonical(public_url) if public_url else None
        self._welcome = frozenset(_canonical(origin) for origin in cors_origins)

    def check(self, method: str, is_upgrade: bool, headers: MultiMapping[str], principal: Principal) -> None:
        """Raises Violation for a call that changes state, or opens a WebSocket, on the word of a foreign page.

        Where a browser proved the caller by itself: a session cookie must come with a known origin; an Access assertion and a Basic password, which
        programs send as well, must not come with a foreign one.
        """
        if method in _SAFE_METHODS and not is_upgrade:
            return
        if not principal.is_session and not _is_ambient(headers):
            return
        if not self._is_from_here(headers, with_welcome=True, is_strict=principal.is_session):
            raise _foreign(headers)

    def check_form(self, headers: MultiMapping[str]) -> None:
        """For the gate's own forms, which work without a credential. Raises Violation when a foreign page sends them.

        SECURITY: else a page could log its visitor in as somebody else. tests/proxy/auth/test_csrf_cors.py::test_form
        """
        if not self._is_from_here(headers, with_welcome=False, is_strict=False):
            raise _foreign(headers)

    def preflight(self, method: str, headers: MultiMapping[str]) -> ClientReply | None:
        """The answer to a CORS preflight of a welcome origin; None for any other request, which then needs a credential."""
        if method != "OPTIONS" or _REQUESTED_METHOD not in headers or not self._is_welcome(headers):
            return None
        return ClientReply(
            204,
            headers=(
                ("Access-Control-Allow-Origin", headers[_ORIGIN]),
                ("Access-Control-Allow-Methods", _ALLOWED_METHODS),
                ("Access-Control-Allow-Headers", _ALLOWED_HEADERS),
                ("Access-Control-Max-Age", str(_PREFLIGHT_LIFETIME_S)),
                ("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
            ),
        )

    def cors_headers(self, headers: MultiMapping[str]) -> tuple[tuple[str, str], ...]:
        """What every answer carries, refusals too, so that a welcome app can read it. Never `*`, and never with the browser's own credentials."""
        if not self._welcome:
            return ()
        if not self._is_welcome(headers):
            return (("Vary", "Origin"),)
        return (
            ("Access-Control-Allow-Origin", headers[_ORIGIN]),
            ("Access-Control-Expose-Headers", _EXPOSED_HEADERS),
            ("Vary", "Origin"),
        )

    def _is_welcome(self, headers: MultiMapping[str]) -> bool:
        origins = _values(headers, _ORIGIN)
        return len(origins) == 1 and origins[0] in self._welcome

    def _is_from_here(self, headers: MultiMapping[str], *, with_welcome: bool, is_strict: bool) -> bool:
        """is_strict: a request that says nothing of where it comes from is refused."""
        origins = _values(headers, _ORIGIN)
        sites = _values(headers, _FETCH_SITE)
        if len(origins) > 1 or len(sites) > 1:
            return False
        if not origins:
            # Fetch standard, 3.2.4 of the metadata specification: pages cannot set Sec-Fetch-Site, and `none` is the user's own doing.
            return sites[0] in ("same-origin", "none") if sites else not is_strict
        if origins[0] == "null":
            # Also what a page of ours sends where its Referrer-Policy is `no-referrer`; anything sandboxed sends it too.
            return bool(sites) and sites[0] == "same-origin"
        return self._is_own(origins[0], headers) or (with_welcome and origins[0] in self._welcome)

    def _is_own(self, origin: str, headers: MultiMapping[str]) -> bool:
        if self._public is not None and origin == self._public:
            return True
        scheme, _, authority = origin.partition("://")
        hosts = _values(headers, _HOST)
        if scheme not in _DEFAULT_PORTS or not authority or len(hosts) != 1:
            return False
        host = hosts[0].lower()
        if self._public is not None and _without_port(host) == _without_port(self._public.partition("://")[2]):
            # SECURITY: http://gate is not https://gate: anybody on the way can be the first. tests/proxy/auth/test_csrf_cors.py::CHECKS
            return False
        return host.removesuffix(_DEFAULT_PORTS[scheme]) == authority


def _values(headers: MultiMapping[str], name: istr) -> list[str]:
    return list(headers.getall(name, ()))


def _is_ambient(headers: MultiMapping[str]) -> bool:
    """Whether a browser may have proven the caller without the page's doing: Access keeps a cookie at the edge, and Basic passwords are remembered."""
    return ASSERTION_HEADER in headers or headers.get(AUTHORIZATION, "")[:6].lower() == "basic "


def _canonical(origin: str) -> str:
    """As browsers write it: lower case, without the scheme's own port."""
    scheme, _, authority = origin.lower().partition("://")
    return f"{scheme}://{authority.removesuffix(_DEFAULT_PORTS.get(scheme, ':'))}"


def _without_port(authority: str) -> str:
    return _PORT.sub("", authority)


def _foreign(headers: MultiMapping[str]) -> Violation:
    return Violation(
        Reason.ORIGIN_FOREIGN,
        "This request comes from another website. Open the gate's own address, or have its operator add the site to server.cors_origins.",
        f"origin: {headers.get(_ORIGIN, 'none')[:200]}",
    )
