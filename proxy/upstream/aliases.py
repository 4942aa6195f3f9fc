"""Finds two entries of the configuration that are one ComfyUI, where that can be known: each would take the other's jobs out of the queue as strays."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import combinations
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from proxy.config import Config
from proxy.config.comfyui import ComfyUISettings

LIMIT_S: Final = 5.0
"""A name that is not resolved by then tells nothing."""
_LISTENERS: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN: Final = "0A"  # net/tcp_states.h
_Place = tuple[IPv4Address | IPv6Address, int]


async def find_aliases(config: Config, listeners: Sequence[Path] = _LISTENERS) -> list[str]:
    """A sentence for each two that are one, or share what each must have of its own. listeners: tables of sockets that listen on this machine."""
    if len(config.comfyuis) < 2:
        return []
    found = await asyncio.gather(*map(_places_of, config.comfyuis))
    places = dict(zip((each.name for each in config.comfyuis), found, strict=True))
    bases = await asyncio.to_thread(_bases_of, config)
    everywhere = await asyncio.to_thread(_ports_everywhere, listeners)
    told = []
    for one, other in combinations(config.comfyuis, 2):
        names = f"{one.name} and {other.name}"
        if (place := _shared(places[one.name], places[other.name], everywhere)) is not None:
            told.append(
                f"{names} are one ComfyUI: both urls lead to {_shown(place)}. Leave one of them out: each takes the other's jobs out of the queue"
            )
        elif one.name in bases and bases[one.name] == bases.get(other.name):
            told.append(
                f"{names} have one directory, {other.directory}: leave one of them out if they are one ComfyUI, else give each a base folder of its own"
            )
    return told


async def _places_of(comfyui: ComfyUISettings) -> frozenset[_Place]:
    """All that its url may lead to; none while its name is not known."""
    parts = urlsplit(comfyui.url)
    port = parts.port or 80
    try:
        async with asyncio.timeout(LIMIT_S):
            rows = await asyncio.get_running_loop().getaddrinfo(parts.hostname or "", port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return frozenset()
    return frozenset((_plain(str(row[4][0])), port) for row in rows)


def _plain(text: str) -> IPv4Address | IPv6Address:
    """One form of each address: who connects to 0.0.0.0 is at this machine."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified:
        return ip_address("127.0.0.1" if address.version == 4 else "::1")
    return address


def _shared(one: frozenset[_Place], other: frozenset[_Place], everywhere: frozenset[int]) -> _Place | None:
    if both := one & other:
        return min(both, key=str)
    for address, port in sorted(one, key=str):
        is_here = port in everywhere and _is_own(address)
        if is_here and any(port == another and _is_own(place) for place, another in other):
            return address, port
    return None


def _is_own(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is one of this machine's."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.bind((str(address), 0))
    except OSError:
        return False
    return True


def _ports_everywhere(listeners: Sequence[Path]) -> frozenset[int]:
    """At which of its ports this machine has one listener for all of its addresses; none where the system does not tell."""
    found = set()
    for file in listeners:
        with suppress(OSError, ValueError, IndexError):
            for line in file.read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                address, _, port = local.partition(":")
                if state == _LISTEN and not address.strip("0"):
                    found.add(int(port, 16))
    return frozenset(found)


def _bases_of(config: Config) -> dict[str, tuple[int, int]]:
    """Device and inode of each base folder that is there, by the name of the ComfyUI."""
    found = {}
    for each in config.comfyuis:
        if each.directory is not None:
            with suppress(OSError):
                base = os.stat(config.resolve(each.directory))
                found[each.name] = (base.st_dev, base.st_ino)
    return found


def _shown(place: _Place) -> str:
    address, port = place
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
