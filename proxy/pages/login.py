"""Login and logout: an API key becomes a browser session. Trusts only what the key ring proves."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Final
from urllib.parse import parse_qsl, quote

from multidict import MultiMapping

from policy.call import ClientReply
from policy.principal import TenantId
from proxy.auth.api_keys import KeyPrincipal
from proxy.auth.authenticator import Authenticator
from proxy.auth.credentials import session_cookie
from proxy.auth.csrf_cors import CsrfCors
from proxy.http.errors import Unauthenticated
from proxy.pages.clearing import clearing_page
from proxy.pages.document import document, redirect, template
from proxy.pages.target import FRONT_PAGE, local_target

LOGIN_PATH: Final = "/gate/login"
_MAX_FIELDS: Final = 8
_FORM: Final = "application/x-www-form-urlencoded"
_LOGIN: Final = template("login.html")
CLEAR: Final = ("Clear-Site-Data", '"cache", "storage"')
_SENTENCES: Final = {
    "key-malformed": "This is not an API key. A key begins with cg_ and is 55 characters long or longer: paste all of it.",
    "key-unknown": "This key is not valid here. Paste all of it, or ask for a new one.",
    "key-expired": "This key has expired. Ask for a new one.",
}


@dataclass(frozen=True, slots=True)
class Login:
    """How a login ended. principal: whose session began; failure: what was wrong with the key, to be counted. Both None: no key was tried."""

    reply: ClientReply
    principal: KeyPrincipal | None = None
    failure: Unauthenticated | None = None


class LoginPages:
    """The pages of one configuration. max_form_bytes: of a login form; root: of the request's path."""

    def __init__(self, authenticator: Authenticator, origins: CsrfCors, max_form_bytes: int, root: str = "/") -> None:
        self._keys = authenticator.keys
        self._sessions = authenticator.sessions
        self._origins = origins
        self._root = root
        self.max_form_bytes = max_form_bytes

    async def login(self, form: bytes, headers: MultiMapping[str]) -> Login:
        """Answers the posted form. Raises Violation when a foreign page posted it."""
        self._origins.check_form(headers)
        if len(form) > self.max_form_bytes:
            return Login(login_page(None, "The form is too large. Paste the API key alone.", 413))
        fields = _fields_of(form, headers.get("Content-Type", ""))
        target = local_target(fields.get("next"))
        text = fields.get("key", "").strip()
        if not text:
            return Login(login_page(target, "Paste your API key.", 400))
        try:
            principal = self._keys.verify(text)
        except Unauthenticated as error:
            sentence = _SENTENCES.get(error.reason, error.message)
            return Login(login_page(target, sentence, 401), failure=error)
        await self._end_session(headers)
        return Login(redirect(self._root + target[1:], self._sessions.begin(principal)), principal)

    async def logout(self, headers: MultiMapping[str]) -> ClientReply:
        """Ends the browser's session, if it has one, and lets it forget what it kept. Raises Violation when a foreign page asks for it."""
        self._origins.check_form(headers)
        await self._end_session(headers)
        forgotten = (*self._sessions.expiring, *self._sessions.storage.unmark, CLEAR)
        return clearing_page("Signed out", f"{self._root}gate/login", None, forgotten)

    def cleared(self, form: bytes, headers: MultiMapping[str], tenant: TenantId) -> ClientReply:
        """Answers the form of the clearing page: the browser's storage is the tenant's from now on. Raises Violation when a foreign page sent it."""
        self._origins.check_form(headers)
        target = local_target(_fields_of(form, headers.get("Content-Type", "")).get("next"))
        return redirect(self._root + target[1:], (*self._sessions.storage.mark(tenant), CLEAR))

    async def _end_session(self, headers: MultiMapping[str]) -> None:
        cookie = session_cookie(headers, self._sessions.cookie_name)
        if cookie is not None and self._sessions.end(cookie, self._keys):
            await self._sessions.save()


def login_page(next: str | None = None, error: str | None = None, status: int = 200) -> ClientReply:
    """The form. next: where to go afterwards, as the client asks for it; error: one sentence on what was wrong."""
    alert = f'<p class="error" id="error" role="alert">{escape(error)}</p>' if error else ""
    content = _LOGIN.substitute(
        next=escape(local_target(next)),
        error=alert,
        invalid='aria-invalid="true" aria-describedby="error"' if error else "",
    )
    return document("Error: sign in" if error else "Sign in", content, status=status)


def login_redirect(target: str, headers: tuple[tuple[str, str], ...] = (), root: str = "/") -> ClientReply:
    """Leads a person's browser to the login, and from there back. target: the request's raw path and query; headers: of a SessionRefused."""
    there = local_target(target)
    page = root + LOGIN_PATH[1:]
    return redirect(page if there == FRONT_PAGE else f"{page}?next={quote(there, safe='/')}", headers)


def storage_page(target: str, root: str) -> ClientReply:
    """Empties what the browser keeps for this address, since somebody else may have left it, and goes on to the target."""
    return clearing_page("One moment", f"{root}gate/storage", local_target(target), ())


def _fields_of(form: bytes, content_type: str) -> dict[str, str]:
    """The fields of a form, each of which stands once; none when it cannot be read in one way only."""
    if content_type.partition(";")[0].strip().lower() != _FORM:
        return {}
    try:
        pairs = parse_qsl(form.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        return {}
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else {}
