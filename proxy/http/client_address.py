"""Who a connection comes from. Believes CF-Connecting-IP only of the proxies that the configuration trusts, and nothing else that a client sends."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Protocol

from multidict import istr

_HEADER: Final = istr("CF-Connecting-IP")
_MAX_PEERS: Final = 4096
_MAX_CLIENTS: Final = 4096
_LONGEST: Final = 45
"""Characters of an IPv6 address with an IPv4 one at its end; only a zone makes it longer."""
# One customer of one provider: whoever has an address has the /64 around it.
_IPV6_PREFIX: Final = 64
UNKNOWN: Final = "unknown"


class Headers(Protocol):
    """Request headers, as multidict holds them."""

    def getall(self, key: str, default: Sequence[str], /) -> Sequence[str]: ...


class ClientAddresses:
    """Finds a request's client. Replaced as a whole on a reload."""

    def __init__(self, trusted_proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self._trusted = tuple(trusted_proxies)
        self._peers: dict[str, tuple[str, bool]] = {}

    def of(self, peer: str | None, headers: Headers) -> str:
        """The client's address, in its shortest form.

        SECURITY: only the one value that Cloudflare sets counts, and only from a trusted peer: X-Forwarded-For can be written by anybody, and with
        two values nobody knows whose is whose (tests/proxy/http/test_client_address.py).
        """
        if peer is None:
            return UNKNOWN
        known = self._know(peer)
        if known[1]:
            values = headers.getall(_HEADER, ())
            if len(values) == 1 and (address := _shortest_form(values[0])) is not None:
                return address
        return known[0]

    def believes(self, peer: str | None) -> bool:
        """Whether a trusted proxy speaks for the client."""
        return peer is not None and self._know(peer)[1]

    def _know(self, peer: str) -> tuple[str, bool]:
        known = self._peers.get(peer)
        if known is None:
            if len(self._peers) >= _MAX_PEERS:
                self._peers.clear()
            known = self._peers[peer] = (str(parse_address(peer) or peer), self._is_trusted(peer))
        return known

    def _is_trusted(self, peer: str) -> bool:
        address = parse_address(peer)
        return address is not None and any(address in network for network in self._trusted)


def _shortest_form(text: str) -> str | None:
    """None for a text that is no address."""
    return _kept_form(text) if len(text) <= _LONGEST else _form(text)


def _form(text: str) -> str | None:
    address = parse_address(text)
    return None if address is None else str(address)


_kept_form: Final = lru_cache(_MAX_CLIENTS)(_form)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address without its zone; an IPv4 address in IPv6 clothes is the IPv4 address (RFC 4291, 2.5.5.2)."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def block_of(address: str) -> str:
    """What failed logins are counted by: the address, of IPv6 its /64."""
    parsed = parse_address(address)
    if not isinstance(parsed, IPv6Address):
        return str(parsed or address[:64])
    return f"{IPv6Address(int(parsed) >> (128 - _IPV6_PREFIX) << (128 - _IPV6_PREFIX))}/{_IPV6_PREFIX}"
