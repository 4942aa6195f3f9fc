"""Whose drafts and settings a browser keeps for pages of this address: a cookie marks the tenant, so that the next one is not shown them."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from multidict import MultiMapping

from policy.principal import TenantId
from proxy.auth.credentials import session_cookie

COOKIE_NAME: Final = "comfygate_storage"
_LIFETIME_S: Final = 400 * 86400


class BrowserStorage:
    """The mark proves nothing, and does not show the tenant's name."""

    def __init__(self, secret: bytes, prefix: str, suffix: str, attributes: str) -> None:
        """prefix, suffix: of the cookie's name; attributes: behind its value, beginning with a semicolon."""
        self._secret = secret
        self._name = f"{prefix}{COOKIE_NAME}{suffix}"
        self._attributes = attributes

    def is_of(self, tenant: TenantId, headers: MultiMapping[str]) -> bool:
        """Whether what the browser keeps is this tenant's. A browser that says nothing may keep anybody's."""
        cookie = session_cookie(headers, self._name)
        return cookie is not None and cookie.value is not None and hmac.compare_digest(cookie.value, self._mark(tenant))

    def mark(self, tenant: TenantId) -> tuple[tuple[str, str], ...]:
        """Headers that note whose the browser's storage is from now on."""
        return (("Set-Cookie", f"{self._name}={self._mark(tenant)}; Max-Age={_LIFETIME_S}{self._attributes}"),)

    @property
    def unmark(self) -> tuple[tuple[str, str], ...]:
        """Headers that note that it is nobody's."""
        return (("Set-Cookie", f"{self._name}=; Max-Age=0{self._attributes}"),)

    def _mark(self, tenant: TenantId) -> str:
        message = b"comfygate storage\n" + tenant.encode("ascii")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()[:32]
