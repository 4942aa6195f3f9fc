"""Addresses outside that a tenant names: how they are written, and which hosts its operator permits.

SECURITY: narrower than RFC 3986, so that whoever reads an address means the same host by it: https, a name in ASCII and no number in any spelling, no user
name, no backslash. Where the name leads is looked at for each connection, when it is made (proxy/outside/door.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urljoin

from policy.values import value

SCHEME: Final = "https"
PORT: Final = 443
MAX_CHARACTERS: Final = 4096
"""An address that is signed for a while holds the signature, and often a token."""
MAX_HOST_CHARACTERS: Final = 253
"""RFC 1035, 2.3.4."""
_SHOWN_HOSTS: Final = 8

_NAME: Final = r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*"
_ADDRESS: Final = re.compile(
    rf"(?i:https)://({_NAME})(?::([0-9]{{1,5}}))?((?:[/?][!$-;=?-\[\]-_a-~]*)?)(?:#[!-~]*)?", re.ASCII
)
_PATTERN: Final = re.compile(rf"(\*|(?:\*\.)?{_NAME})(?::([0-9]{{1,5}}))?")
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)")
"""A name whose last part is one is read as an IPv4 address by many (WHATWG URL, 4.3), also where it is none."""


class AddressRefused(Exception):
    """The text says what to write, as a part of a sentence."""


@value
class Address:
    """host: in lower case. target: path and query, as they are sent."""

    host: str
    port: int
    target: str

    @property
    def url(self) -> str:
        return f"{self.origin}{self.target}"

    @property
    def origin(self) -> str:
        return f"{SCHEME}://{self.host}" if self.port == PORT else f"{SCHEME}://{self.host}:{self.port}"


@value
class HostPattern:
    """host: a name, `*.name` for all below it, `*` for every one."""

    host: str
    port: int = PORT

    def permits(self, address: Address) -> bool:
        if address.port != self.port:
            return False
        return self.host in ("*", address.host) or (self.host[:2] == "*." and address.host.endswith(self.host[1:]))

    def __str__(self) -> str:
        return self.host if self.port == PORT else f"{self.host}:{self.port}"


def parse_host_pattern(text: str) -> HostPattern:
    """Raises ValueError."""
    match = _PATTERN.fullmatch(text)
    port = _port(match[2]) if match else None
    if not match or port is None or len(match[1]) > MAX_HOST_CHARACTERS or _NUMBER.fullmatch(match[1]):
        raise ValueError(
            f'{text!r} is no host: write "images.example.com", "*.example.org" for all below it, or "*"; '
            'with a port where it is not 443, as "images.example.com:8443"'
        )
    return HostPattern(match[1].lower(), port)


def is_web_address(text: str) -> bool:
    """Whether it means to be one."""
    return text[:8].lower().startswith(("https://", "http://"))


def read_address(text: str, hosts: Sequence[HostPattern]) -> Address:
    """hosts: that are permitted. Raises AddressRefused."""
    match = _ADDRESS.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    if match is None:
        raise AddressRefused(
            f"write an address as https://images.example.com/a.png, percent-encoded, without a user name, of at most {MAX_CHARACTERS} characters"
        )
    host, port, target = match[1].lower(), _port(match[2]), match[3]
    if port is None or len(host) > MAX_HOST_CHARACTERS:
        raise AddressRefused("its host or its port is none")
    if _NUMBER.fullmatch(host):
        raise AddressRefused("name the host, and not its number")
    address = Address(host, port, target if target.startswith("/") else f"/{target}")
    if not any(pattern.permits(address) for pattern in hosts):
        raise AddressRefused(f"this host is not among those that you may name: {_listed(hosts)}")
    return address


def follow(address: Address, location: str, hosts: Sequence[HostPattern]) -> Address:
    """Where a redirect leads (RFC 9110, 10.2.2): held to the same as what was named. Raises AddressRefused."""
    try:
        return read_address(urljoin(address.url, location[: MAX_CHARACTERS + 1]), hosts)
    except (AddressRefused, ValueError):
        raise AddressRefused("to an address that you may not name") from None


def _listed(hosts: Sequence[HostPattern]) -> str:
    shown = ", ".join(map(str, hosts[:_SHOWN_HOSTS]))
    return f"{shown} and {len(hosts) - _SHOWN_HOSTS} more" if len(hosts) > _SHOWN_HOSTS else shown or "there are none"


def _port(text: str | None) -> int | None:
    """443 where none is written; None for one that is none."""
    port = PORT if text is None else int(text)
    return port if 1 <= port <= 65535 else None
