"""What came and waits to be read: heads that have not come whole, and requests before their turn. Bounded over all connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.http.connection import Connection

MAX_STRANGERS_BYTES: Final = 8 * 1024**2
"""Of connections on which no credential came."""
MAX_KNOWN_BYTES: Final = 24 * 1024**2
"""Of all others: more than one tenant's requests under way, and those that wait for a place, can bring."""


class Unread:
    """Hangs up where it is too much: on who has let something wait for longest, of strangers for strangers, of others for others.

    SECURITY: else strangers with half a head each, or many requests at once, fill the memory; and with one bound for all, a tenant's requests have every
    stranger hung up on whose head comes in two pieces (tests/security/test_unread.py).
    """

    def __init__(self) -> None:
        self.of_strangers = _Share(MAX_STRANGERS_BYTES)
        self.of_known = _Share(MAX_KNOWN_BYTES)

    def keep(self, connection: Connection, size: int) -> None:
        """So many bytes of it wait."""
        self.of_strangers.keep(connection, 0 if connection.is_proven else size)
        self.of_known.keep(connection, size if connection.is_proven else 0)


class _Share:
    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.waiting: dict[Connection, int] = {}
        """How much, by connection; the longest first."""

    def keep(self, connection: Connection, size: int) -> None:
        self.bytes += size - self.waiting.get(connection, 0)
        if size:
            self.waiting[connection] = size
        else:
            self.waiting.pop(connection, None)
        while self.bytes > self.max_bytes:
            longest = next(iter(self.waiting))
            self.bytes -= self.waiting.pop(longest)
            longest.close()
