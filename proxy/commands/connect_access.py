"""Who may use the port of `comfygate connect`: programs that name it as one of its own hosts, and pages of its own or of named origins. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from multidict import CIMultiDict, MultiMapping
from yarl import URL

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_ALLOWED_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
_EXPOSED_HEADERS: Final = (
    "Content-Disposition, Content-Length, Content-Range, ETag, Idempotency-Replayed, RateLimit, RateLimit-Policy, "
    "Retry-After, X-Request-Id"
)
_PREFLIGHT_LIFETIME_S: Final = 600


class LocalAccess:
    """hosts: names besides those of loopback under which programs may call; origins: web pages that may, as browsers write them."""

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    def admits(self, authority: str, headers: MultiMapping[str]) -> bool:
        """authority: host and port as the client names them.

        SECURITY: no other website may use the key, neither by a request of its page nor by a name that leads to this machine
        (tests/proxy/commands/test_connect_proxy.py::test_pages_of_other_sites_cannot_use_the_key).
        """
        try:
            host = URL(f"http://{authority}").host
        except ValueError:
            return False
        if host not in self._hosts:
            return False
        own = f"http://{authority.lower()}"
        page = _page_of(headers)
        if page is not None:
            return page == own or page in self._origins
        return headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")

    def preflight(self, method: str, headers: MultiMapping[str]) -> CIMultiDict[str] | None:
        """The head of the 204 that answers a CORS preflight of a named origin; None for any other request."""
        if method != "OPTIONS" or "Access-Control-Request-Method" not in headers:
            return None
        answer = self.response_headers(headers)
        if "Access-Control-Allow-Origin" not in answer:
            return None
        answer["Access-Control-Allow-Methods"] = _ALLOWED_METHODS
        answer["Access-Control-Max-Age"] = str(_PREFLIGHT_LIFETIME_S)
        if wanted := headers.get("Access-Control-Request-Headers"):
            answer["Access-Control-Allow-Headers"] = wanted  # the origin is trusted with everything that the key opens
        return answer

    def response_headers(self, headers: MultiMapping[str]) -> CIMultiDict[str]:
        """What each answer carries so that a page of a named origin can read it. Never `*`."""
        if not self._origins:
            return CIMultiDict()
        origin = headers.get("Origin", "")
        if origin not in self._origins:
            return CIMultiDict({"Vary": "Origin"})
        return CIMultiDict(
            {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Expose-Headers": _EXPOSED_HEADERS,
                "Vary": "Origin",
            }
        )


def _page_of(headers: MultiMapping[str]) -> str | None:
    """The origin of the page that sends a request, None for a program: of pictures and scripts browsers tell it in Referer alone."""
    origin = headers.get("Origin")
    if origin is not None:
        return origin.lower()
    referer = headers.get("Referer")
    if referer is None:
        return None
    try:
        return str(URL(referer).origin()).lower()
    except ValueError:
        return ""
