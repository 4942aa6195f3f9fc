"""What came and waits to be read: heads that have not come whole, and requests before their turn. Bounded over all connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from proxy.http.connection import Connection

MAX_STRANGERS_BYTES: Final = 8 * 1024**2
"""Of connections on which no good credential came."""
MAX_KNOWN_BYTES: Final = 24 * 1024**2
"""Of all others: more than one tenant's requests under way, and those that wait for a place, can bring."""


class Unread:
    """Hangs up where it is too much: on strangers for strangers, and on those of the party that has most for all others; first on who has let something
    wait for longest.

    SECURITY: else strangers with half a head each, or many requests at once, fill the memory; with one bound for all, a tenant's requests have every
    stranger hung up on whose head comes in two pieces; and without parties, two tenants have a third's hung up on (tests/security/test_unread.py).
    """

    def __init__(self) -> None:
        self.of_strangers = _Share(MAX_STRANGERS_BYTES)
        self.of_known = _Share(MAX_KNOWN_BYTES)

    def keep(self, connection: Connection, size: int) -> None:
        """So many bytes of it wait."""
        self.of_strangers.keep(connection, 0 if connection.party else size)
        self.of_known.keep(connection, size if connection.party else 0)


class _Share:
    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.waiting: dict[Connection, _Waiting] = {}
        """The longest first."""
        self.bytes = 0
        self._by_party: dict[str, int] = {}
        """How much, of those that have something waiting."""

    def keep(self, connection: Connection, size: int) -> None:
        known = self.waiting.get(connection)
        if known is not None:
            self._count(known.party, -known.size)
        if size:
            self.waiting[connection] = _Waiting(connection.party, size)
            self._count(connection.party, size)
        elif known is not None:
            del self.waiting[connection]
        while self.bytes > self.max_bytes:
            self._hang_up(max(self._by_party, key=self._by_party.__getitem__))

    def _count(self, party: str, size: int) -> None:
        self.bytes += size
        self._by_party[party] = self._by_party.get(party, 0) + size
        if not self._by_party[party]:
            del self._by_party[party]

    def _hang_up(self, party: str) -> None:
        longest = next(connection for connection, waiting in self.waiting.items() if waiting.party == party)
        self._count(party, -self.waiting.pop(longest).size)
        longest.close()


class _Waiting(NamedTuple):
    """size: in bytes. party: whose it was then."""

    party: str
    size: int
