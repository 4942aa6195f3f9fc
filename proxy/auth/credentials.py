"""What a request presents to prove who calls, as typed values. Nothing is verified here; what cannot be read in one way only is refused."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_plus

from multidict import MultiMapping, istr

from policy.keyform import KEY_FORM
from proxy.http.errors import Unauthenticated

AUTHORIZATION: Final = istr("Authorization")
API_KEY_HEADER: Final = istr("X-API-Key")
ASSERTION_HEADER: Final = istr("Cf-Access-Jwt-Assertion")
COOKIE: Final = istr("Cookie")
TOKEN_PARAMETER: Final = "token"  # noqa: S105 - the name of a query field

CREDENTIAL_PARAMETERS: Final = frozenset({TOKEN_PARAMETER})
"""Query fields that may reach neither ComfyUI nor a log."""

TOMBSTONE: Final = "ended"
"""What the gate sets the cookie of an ended session to. It claims nothing, so it is no credential."""

MAX_CREDENTIAL_BYTES: Final = 16 * 1024
_KEY_PREFIX = "cg_"
# RFC 9110, 11.2: token68. A comma or a space would be a second credential in one field.
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_KEY_AND_MORE = re.compile(KEY_FORM.pattern + "[/?]")


@dataclass(frozen=True, slots=True)
class ApiKey:
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A JWT that the client chose to send."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccessAssertion:
    """A JWT that Cloudflare Access put before the request."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionCookie:
    """value: None when the cookie stands several times with different values."""

    value: str | None = field(repr=False)


Credential = ApiKey | Token | AccessAssertion | SessionCookie


def read_credentials(
    headers: MultiMapping[str], query: tuple[tuple[str, str], ...], cookie_name: str
) -> tuple[Credential, ...]:
    """All credentials of a request, the session cookie first, none left out. An empty one is absent: clients send what nobody filled in.

    Raises Unauthenticated for one that is present and malformed, whatever stands beside it.
    """
    found: list[Credential] = []
    if COOKIE in headers and (cookie := session_cookie(headers, cookie_name)) and cookie.value != TOMBSTONE:
        found.append(cookie)
    if AUTHORIZATION in headers and (proof := _authorization(_only(headers, AUTHORIZATION))):
        found.append(proof)
    if API_KEY_HEADER in headers and (key := _only(headers, API_KEY_HEADER)):
        found.append(ApiKey(_plain(key, API_KEY_HEADER)))
    if ASSERTION_HEADER in headers:
        found.append(AccessAssertion(_plain(_only(headers, ASSERTION_HEADER), ASSERTION_HEADER)))
    if query and (tokens := [value for name, value in query if name == TOKEN_PARAMETER and value]):
        if len(tokens) > 1:
            raise _malformed("The query field 'token' stands more than once. Send one.")
        if _KEY_AND_MORE.match(tokens[0]):
            raise _malformed(
                "A path stands behind the key in the query field 'token': this client appends its paths to the address that it was given, which so "
                "ends with them. Give it the address alone and run `comfygate connect`."
            )
        found.append(_key_or_token(_plain(tokens[0], "token")))
    return tuple(found)


def session_cookie(headers: MultiMapping[str], cookie_name: str) -> SessionCookie | None:
    """The session cookie of a request, None when there is none.

    RFC 6265, 5.4: values are compared as they came, since a browser sends back exactly what the gate has set.
    """
    values = {
        value.strip(" \t")
        for line in headers.getall(COOKIE, ())
        for part in line.split(";")
        for name, equals, value in (part.partition("="),)
        if equals and name.strip(" \t") == cookie_name
    }
    if not values:
        return None
    value = next(iter(values))
    is_readable = len(values) == 1 and len(value) <= MAX_CREDENTIAL_BYTES and _PRINTABLE.fullmatch(value)
    return SessionCookie(value if is_readable else None)


def presented_texts(headers: MultiMapping[str], query: tuple[tuple[str, str], ...], cookie_name: str) -> list[str]:
    """The credentials of a request that was let in, as they were sent: what must not stand anywhere else in it."""
    found: list[str] = []
    if AUTHORIZATION in headers:
        found += [text.rpartition(" ")[2] for text in headers.getall(AUTHORIZATION)]
    for name in (API_KEY_HEADER, ASSERTION_HEADER):
        if name in headers:
            found += headers.getall(name)
    if query:
        found += [value for name, value in query if name == TOKEN_PARAMETER]
    cookie = session_cookie(headers, cookie_name) if COOKIE in headers else None
    if cookie is not None and cookie.value is not None:
        found.append(cookie.value)
    return found


def without_tokens(query: str) -> str:
    """A raw query string without its credentials, for what is shown or sent back. Other fields stay byte for byte."""
    return "&".join(
        part for part in query.split("&") if unquote_plus(part.partition("=")[0]).lower() not in CREDENTIAL_PARAMETERS
    )


def _authorization(text: str) -> Credential | None:
    scheme, _, rest = text.partition(" ")
    rest = rest.strip(" ")
    if not rest and scheme.lower() in ("", "bearer", "basic"):
        return None
    match scheme.lower():
        case "bearer":
            if len(rest) > MAX_CREDENTIAL_BYTES or not _TOKEN68.fullmatch(rest):
                raise _malformed("The Bearer token in Authorization is empty or malformed.")
            return _key_or_token(rest)
        case "basic":
            key = _basic_key(rest)
            return ApiKey(key) if key is not None else None
        case _:
            raise _malformed("Send 'Authorization: Bearer <API key or token>' or Basic with the key as password.")


def _basic_key(text: str) -> str | None:
    """RFC 7617: base64 of `user:password`. The user's name is free, since the key says who calls; a key in its place counts where there is no password.

    None when both are empty.
    """
    if len(text) > MAX_CREDENTIAL_BYTES:
        raise _malformed("The Basic credentials are too long.")
    try:
        decoded = base64.b64decode(text.encode("ascii"), validate=True).decode("ascii")
    except (binascii.Error, UnicodeError):
        raise _malformed("The Basic credentials are not base64 of '<any name>:<API key>'.") from None
    user, colon, password = decoded.partition(":")
    if not colon:
        raise _malformed("The Basic credentials have no colon: send base64 of '<any name>:<API key>'.")
    if not password:
        if not user:
            return None
        if user.startswith(_KEY_PREFIX):
            return _plain(user, "Basic user name")
    return _plain(password, "Basic password")


def _key_or_token(text: str) -> Credential:
    return ApiKey(text) if text.startswith(_KEY_PREFIX) else Token(text)


def _plain(text: str, place: str) -> str:
    # SECURITY: ASCII only, so that no comparison further on can fail on a character. test_credentials.py::BAD
    if len(text) > MAX_CREDENTIAL_BYTES or not _PRINTABLE.fullmatch(text):
        raise _malformed(f"The credential in {place} is empty, too long or has characters that no credential has.")
    return text


def _only(headers: MultiMapping[str], name: istr) -> str:
    values = headers.getall(name)
    if len(values) != 1:
        raise _malformed(f"The header {name} stands more than once. Send one.")
    return values[0]


def _malformed(message: str) -> Unauthenticated:
    return Unauthenticated(message, reason="credential-malformed")
