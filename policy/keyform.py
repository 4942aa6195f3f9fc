"""What a credential of the gate looks like where it has no business: in a document, a name, a query field. Pure: it knows no key.

A client with one field for a key sends it twice, as its credential and as the key of some other service. What the gate sends on goes to ComfyUI and,
with a workflow that calls other services, to hosts of strangers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import field
from typing import Any, Final

import orjson

from policy.document import MAX_PARTS, has_escaped_ascii, holds, parse_json
from policy.values import value
from policy.violation import Reason, Violation

KEY_FORM: Final = re.compile(r"cg_([0-9a-f]{8,32})_[A-Za-z0-9_-]{43}")
"""Group 1 is the id, which is not secret."""
MIN_SECRET_LENGTH: Final = 16
"""Shorter texts stand in documents by chance."""

_KEY_FORM_BYTES: Final = re.compile(KEY_FORM.pattern.encode())
_ESCAPED: Final = re.compile(r'["\\/\x00-\x1f\x7f-\U0010ffff]')
"""What clients may write with a backslash beside ASCII as `\\uXXXX`."""
_PREFIX: Final = "cg_"
# What clients fill with the key that they were given for ComfyUI (comfy_api_nodes read them as Comfy.org's).
_OTHER_SERVICES: Final = ("api_key_comfy_org", "auth_token_comfy_org")


@value
class Presented:
    """What a request proved itself with: see `presented`. texts: as they were sent; never shown. sent, in_json: the same as bytes, as they come and as
    orjson writes them."""

    texts: frozenset[str] = field(default=frozenset(), repr=False)
    sent: tuple[bytes, ...] = field(default=(), repr=False, compare=False)
    in_json: tuple[bytes, ...] = field(default=(), repr=False, compare=False)

    def stands_in(self, text: str) -> bool:
        """Whether the text holds one of these credentials, or anything that has the form of a key of a gate."""
        if _PREFIX in text and KEY_FORM.search(text):
            return True
        for secret in self.texts:  # noqa: SIM110 - a generator costs more than what it looks at
            if secret in text:
                return True
        return False

    def may_stand_in(self, body: bytes) -> bool:
        """Whether it is worth to read a document for it: fast, and never wrong when it says no. Any character can be escaped in JSON (RFC 8259, 7)."""
        if has_key_form(body):
            return True
        if holds(body, b"\\") and (has_escaped_ascii(body) or any(map(_ESCAPED.search, self.texts))):
            return True
        return _holds_one(body, self.sent)

    def stands_in_json(self, written: bytes) -> bool:
        """Whether a document that orjson wrote may hold one of them: never wrong when it says no, since JSON spells a text character by character."""
        return has_key_form(written) or self.is_itself_in_json(written)

    def is_itself_in_json(self, written: bytes) -> bool:
        """As `stands_in_json`, of a document without anything that has the form of a key."""
        return _holds_one(written, self.in_json)


def _holds_one(document: bytes, secrets: Iterable[bytes]) -> bool:
    for secret in secrets:  # noqa: SIM110 - a generator costs more than what it looks at
        if holds(document, secret):
            return True
    return False


def has_key_form(written: bytes) -> bool:
    """Whether anything with the form of a key of a gate stands there, unescaped."""
    # A pattern that begins with these letters is found in a third of the time that it takes to look for them alone.
    return _KEY_FORM_BYTES.search(written) is not None


NOTHING_PRESENTED: Final = Presented()


def presented(texts: Iterable[str]) -> Presented:
    secrets = frozenset([text for text in texts if len(text) >= MIN_SECRET_LENGTH])
    # What is no UTF-8 stands in no JSON document, and is no reason to fail.
    sent = tuple([secret.encode(errors="surrogatepass") for secret in secrets])
    in_json = tuple([orjson.dumps(secret.encode(errors="replace").decode())[1:-1] for secret in secrets])
    return Presented(secrets, sent, in_json)


def check_names(credentials: Presented, texts: Iterable[str], place: str) -> None:
    """Raises Violation(credential-misplaced) when one of the texts holds a credential. place: in words, for the answer."""
    if credentials.stands_in("\n".join(texts)):
        raise _misplaced(place)


def check_document(credentials: Presented, raw: bytes, max_parts: int = MAX_PARTS) -> tuple[bytes, tuple[str, ...]]:
    """A JSON document without credentials, and the fields that were left out for it.

    Left out is a key of the gate that a client gives as the key of another service, since clients with one field for a key cannot do otherwise;
    anywhere else it is a mistake that the client's user must know of. Raises Violation(credential-misplaced), and body-malformed as parse_json.
    """
    if not credentials.may_stand_in(raw):
        return raw, ()
    document = parse_json(raw, max_parts=max_parts)
    # Written anew, a text has one spelling: most documents with an escape hold no credential, and are not walked through.
    if not credentials.stands_in_json(orjson.dumps(document)):
        return raw, ()
    left_out: list[str] = []
    extra = document.get("extra_data") if isinstance(document, dict) else None
    if isinstance(extra, dict):
        for name in _OTHER_SERVICES:
            if isinstance(value := extra.get(name), str) and credentials.stands_in(value):
                del extra[name]
                left_out.append(f"extra_data.{name}")
    place = find_place(credentials, document)
    if place is not None:
        raise _misplaced(f"at {place}" if place else "in the document")
    return (orjson.dumps(document) if left_out else raw), tuple(left_out)


def find_place(credentials: Presented, document: Any) -> str | None:
    """Where in a document a credential stands, as "prompt.6.inputs.text"; None when it does nowhere, empty for the document itself."""
    stack: list[tuple[str, Any]] = [("", document)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, str):
            if credentials.stands_in(value):
                return path
        elif isinstance(value, dict):
            if any(credentials.stands_in(name) for name in value):
                return path  # the name itself must not be told
            stack += [(f"{path}.{name}" if path else name, item) for name, item in value.items()]
        elif isinstance(value, list):
            stack += [(f"{path}.{index}" if path else str(index), item) for index, item in enumerate(value)]
    return None


def _misplaced(place: str) -> Violation:
    return Violation(
        Reason.CREDENTIAL_MISPLACED,
        "A key of the gate stands where it is no credential, and whoever sees it there could use it. Take it out, and send it as "
        "Authorization or X-API-Key alone.",
        f"found {place}"[:300],
    )
