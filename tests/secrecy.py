"""Nothing that opens the gate is written down by it: every gate of a test is watched, and what it wrote is searched when it has stopped."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from proxy.auth import key_file
from proxy.auth.api_keys import KeyPrincipal
from proxy.auth.sessions import Sessions

# Also keys and tokens that the test made up itself.
_SHAPES = re.compile(rb"cg_[0-9a-f]{8}_[A-Za-z0-9_-]{16,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")


class CredentialWritten(AssertionError):
    """A log or the audit trail holds what would let its reader in."""


class Secrecy:
    """secrets: the parts of keys and session cookies that only their owners may have. places: what is searched, by name."""

    def __init__(self) -> None:
        self.secrets: set[bytes] = set()
        self.places: dict[str, bytes] = {}

    def add_key(self, text: str) -> None:
        self.secrets.add(text.split("_", 2)[2].encode())

    def add_cookie(self, header: str) -> None:
        """Of a Set-Cookie field: its signature, without which the rest is worth nothing."""
        self.secrets.add(header.partition(";")[0].rpartition(".")[2].encode())

    def check(self) -> None:
        """Raises CredentialWritten."""
        for place, content in self.places.items():
            found = [secret for secret in self.secrets if secret in content]
            found += _SHAPES.findall(content)
            if found:
                raise CredentialWritten(f"{place} holds {found[0][:24]!r}…")


class _Records(logging.Handler):
    """What the gate says, with the stacks, as it would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


@contextmanager
def watched(audit_file: Path) -> Iterator[Secrecy]:
    """Learns of every key and every session that is made meanwhile, and of what is logged. The caller adds its request log, and checks."""
    secrecy, records = Secrecy(), _Records()
    # What is there may be the watch of another gate of the same test, which learns of it too.
    generate, begin = vars(key_file)["generate_key"], Sessions.begin

    def generate_key() -> tuple[str, str]:
        key_id, text = generate()
        secrecy.add_key(text)
        return key_id, text

    def begin_session(self: Sessions, key: KeyPrincipal) -> tuple[tuple[str, str], ...]:
        fields = begin(self, key)
        for _, value in fields:
            secrecy.add_cookie(value)
        return fields

    root = logging.getLogger()
    root.addHandler(records)
    try:
        with (
            mock.patch.object(key_file, "generate_key", generate_key),
            mock.patch.object(Sessions, "begin", begin_session),
        ):
            yield secrecy
    finally:
        root.removeHandler(records)
        secrecy.places["the log"] = "\n".join(records.said).encode()
        secrecy.places["the audit trail"] = b"".join(
            file.read_bytes() for file in audit_file.parent.glob(f"{audit_file.name}*") if file.is_file()
        )
