"""systemd's protocols for its services: readiness and watchdog (sd_notify(3)), datagrams to the socket that the service manager names; and socket
activation (sd_listen_fds(3)), sockets that listen already and stay open over a restart. Elsewhere they do nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from proxy.config import Config, ConfigError, Mistake

_MIN_INTERVAL_S: Final = 0.05
FIRST_DESCRIPTOR: Final = 3
"""SD_LISTEN_FDS_START."""
_MAX_SOCKETS: Final = 16
_OPS: Final = "ops"
_NOT_LISTENING: Final = (
    "is no TCP socket that listens. The .socket unit needs ListenStream= with an address and a port, and Accept=no"
)


class ServiceManager:
    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        usec = environ.get("WATCHDOG_USEC", "")
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # Half the time that systemd waits, as its manual advises.
        self.watchdog_s = int(usec) / 2_000_000 if usec.isdigit() and is_ours else None

    def notify(self, state: str) -> None:
        """Sends `READY=1`, `STOPPING=1`, … A manager that does not listen is no reason to fail."""
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.connect(address)
                sender.send(state.encode())
        except OSError:
            return

    async def keep_alive(self) -> None:
        """Tells the watchdog that the event loop turns; returns at once where there is no watchdog."""
        if self.watchdog_s is None:
            return
        while True:
            self.notify("WATCHDOG=1")
            await asyncio.sleep(max(self.watchdog_s, _MIN_INTERVAL_S))


@dataclass(frozen=True, slots=True)
class PassedSockets:
    """Sockets that listened before the gate was started, by the listener that takes its connections from them."""

    public: tuple[socket.socket, ...] = ()
    ops: tuple[socket.socket, ...] = ()


def take_sockets(
    config: Config, environ: MutableMapping[str, str] = os.environ, first: int = FIRST_DESCRIPTOR
) -> PassedSockets:
    """What the service manager passed to this process; nothing where it passed nothing. One named `ops` is the ops listener's, all others are the
    public one's. They are taken out of the environment, so that no child takes them for its own.

    Raises ConfigError for what is no TCP socket that listens, and for one that listens elsewhere than the configuration says.
    """
    pid, count, names = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if not count or pid != str(os.getpid()):
        return PassedSockets()
    if not (count.isascii() and count.isdecimal() and int(count) <= _MAX_SOCKETS):
        told = f"LISTEN_FDS is {count!r}: the gate takes up to {_MAX_SOCKETS} sockets from its service manager"
        raise ConfigError(config.file, [Mistake("", None, told)])
    found: dict[str, list[socket.socket]] = {"server": [], "ops": []}
    mistakes: list[Mistake] = []
    for index in range(int(count)):
        name = (names.split(":")[index : index + 1] or [""])[0] or "unknown"
        section, settings = ("ops", config.ops) if name == _OPS else ("server", config.server)
        try:
            taken = _listening_socket(first + index)
            found[section].append(taken)
            _check_address(taken, section, settings.host, settings.port)
        except ValueError as error:
            told = f"the socket {name!r}, which the service manager passed, {error}"
            mistakes.append(Mistake(f"{section}.port", None, told))
    if mistakes:
        for each in (*found["server"], *found["ops"]):
            each.close()
        raise ConfigError(config.file, mistakes)
    return PassedSockets(tuple(found["server"]), tuple(found["ops"]))


def _listening_socket(descriptor: int) -> socket.socket:
    """Raises ValueError."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        raise ValueError(_NOT_LISTENING) from None
    is_tcp = found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM
    if not is_tcp or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        found.detach()
        raise ValueError(_NOT_LISTENING)
    found.set_inheritable(False)
    found.setblocking(False)
    return found


def _check_address(found: socket.socket, section: str, host: str, port: int) -> None:
    """Raises ValueError.

    SECURITY: a socket unit that says no more than `ListenStream=8190` listens on every address (tests/proxy/test_passed_sockets.py).
    """
    own_port: int = found.getsockname()[1]
    if _addresses_of(found) <= _addresses_at(host) and port in (0, own_port):
        return
    listens = f"{' and '.join(sorted(map(str, _addresses_of(found))))}, port {own_port}"
    raise ValueError(
        f"listens on {listens}, but {section}.host and {section}.port say {host}, port {port}: "
        "let them and ListenStream= of the .socket unit say the same"
    )


def _addresses_of(found: socket.socket) -> set[IPv4Address | IPv6Address]:
    """Where it listens: one of `::` on every address of IPv4 too, unless it says that it does not (RFC 3493, 5.3)."""
    address = ip_address(found.getsockname()[0])
    is_both = address == IPv6Address(0) and not found.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return {address, IPv4Address(0)} if is_both else {address}


def _addresses_at(host: str) -> set[IPv4Address | IPv6Address]:
    """Where the gate would listen. Raises ValueError."""
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ValueError(f"cannot be compared with {host}: {error.strerror or error}") from None
    return {ip_address(address[0]) for *_, address in found}
