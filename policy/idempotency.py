"""`Idempotency-Key` of a submission: how it is read, what makes two submissions the same one, and which answers say something for good."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from policy.call import ClientCall
from policy.violation import Reason, Violation
from policy.workflow import NodeReason

MAX_KEY_CHARACTERS: Final = 255
# A string of RFC 9651, 3.3.3; parameters behind it say nothing here (3.1.2), and are not looked at.
_STRING: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"(?: *;[ -~]*)?')
_ESCAPED: Final = re.compile(r"\\(.)")
_BARE: Final = re.compile(r"[!#-~][ -~]*")
_DECISIONS: Final = frozenset(
    {Reason.POLICY_VIOLATION, Reason.WORKFLOW_MALFORMED, Reason.BODY_MALFORMED, Reason.NAME_REFUSED}
)
_DECIDED: Final = frozenset({200, 400, 422})


def parse_key(lines: Sequence[str]) -> str:
    """The key of a request's `Idempotency-Key` lines: a quoted string, or the same text bare. Raises Violation(header-malformed)."""
    text = lines[0].strip(" \t") if len(lines) == 1 else ""
    quoted = _STRING.fullmatch(text)
    key = _ESCAPED.sub(r"\1", quoted[1]) if quoted else text if _BARE.fullmatch(text) else ""
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise Violation(
            Reason.HEADER_MALFORMED,
            f"Send one Idempotency-Key of 1 to {MAX_KEY_CHARACTERS} printable ASCII characters, in double quotes or bare.",
            "Idempotency-Key",
        )
    return key


def fingerprint(call: ClientCall, raw: bytes) -> bytes:
    """32 bytes: two submissions have the same when route, query and body are the same, byte by byte. The body names the client."""
    target = repr((call.method, call.segments, call.query)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(hashlib.sha256(target).digest() + raw).digest()


def is_decision(violation: Violation) -> bool:
    """Whether it was refused for what the document says, and not for what the moment was like, or who asked."""
    is_early = any(code == NodeReason.CATALOGUE_UNKNOWN for code, _ in violation.general)
    return violation.reason in _DECISIONS and not is_early


def is_decided(status: int) -> bool:
    """The same of an answer that is ComfyUI's."""
    return status in _DECIDED
