"""What may be asked outside, and what comes of it; without what is needed to ask (proxy/outside/door.py), which few gates load."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from policy.public_addresses import Address, is_private, is_public, plain


class Unreachable(Exception):
    """There was no answer. The text says why, without anything that the other side has sent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """retry_after: as the other side has sent it."""

    status: int
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """ports: those that it may be asked at. allows_private: whether it may be on this machine or in a private network; http alone must be on this one. tenant:
    for whom it is asked, "" for nobody's.
    """

    url: str
    ports: frozenset[int] = frozenset({80, 443})
    allows_private: bool = False
    tenant: str = ""

    def objection_to(self, address: str, port: int) -> str | None:
        """Why a connection to this address may not be, None when it may. address: a numeric one, perhaps with a zone."""
        try:
            found = ip_address(address)
        except ValueError:
            return f"{address} is no address"
        if port not in self.ports:
            return f"port {port} is not permitted"
        if self.allows_private and self.url.startswith("http:"):
            return None if plain(found).is_loopback else f"{address} is not this machine: use https"
        if is_public(found) or (self.allows_private and _is_permitted(found)):
            return None
        return f"{address} is not a public address"


def _is_permitted(address: Address) -> bool:
    return is_private(address) or is_public(plain(address))
