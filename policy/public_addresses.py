"""Which addresses the gate may connect to for a tenant: an allow-list, so that what nobody thought of is refused.

Sources: the special-purpose registries of IANA (RFC 6890), and the addresses at which clouds serve metadata to their machines.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

_UNICAST_4: Final = (IPv4Address("1.0.0.0"), IPv4Address("223.255.255.255"))
_NOT_PUBLIC_4: Final = tuple(
    map(
        IPv4Network,
        (
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.52.193.0/24",  # AMT, which leads to others
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "161.26.0.0/16",  # services that IBM's cloud shows its machines alone
            "166.8.0.0/14",
            "168.63.129.16/32",  # Azure's wire server
        ),
    )
)
_GLOBAL_6: Final = IPv6Network("2000::/3")
"""All that is given out; translation (64:ff9b::/96), site-local and unique local addresses lie outside."""
_NOT_PUBLIC_6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # Teredo, ORCHID, benchmarking and other protocols
            "2001:db8::/32",
            "2002::/16",  # 6to4: an IPv4 address in disguise
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",
        ),
    )
)
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""The upper half of an interface identifier behind which an IPv4 address stands (RFC 5214, 6.1)."""
_PRIVATE: Final[tuple[IPv4Network | IPv6Network, ...]] = (
    *map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    *map(IPv6Network, ("::1/128", "fc00::/7")),
)
_METADATA: Final = frozenset(map(ip_address, ("100.100.100.200", "fd00:ec2::254", "fd20:ce::254", "fd00:42::42")))
"""Among private addresses; most clouds have theirs among the link-local ones, which are never permitted."""


def plain(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one (RFC 4291, 2.5.5.2) as what it is; without a zone."""
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(int(address))


def is_public(address: Address) -> bool:
    """Of the internet: nothing of this machine's, of a private network's, and nothing that stands for another address."""
    if isinstance(address, IPv4Address):
        low, high = _UNICAST_4
        return low <= address <= high and not any(address in network for network in _NOT_PUBLIC_4)
    if address.scope_id is not None or address not in _GLOBAL_6 or int(address) >> 32 & 0xFFFF_FFFF in _ISATAP:
        return False
    return not any(address in network for network in _NOT_PUBLIC_6)


def is_private(address: Address) -> bool:
    """Of this machine or of a private network, as an operator may permit; no link-local address, and none of a cloud's metadata."""
    found = plain(address)
    return found not in _METADATA and any(found in network for network in _PRIVATE if network.version == found.version)
