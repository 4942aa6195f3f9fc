"""Ports for programs that have to be told one before they start, or that are started again on the same.

Port 0 would do for what listens at once. Given back, such a port is the kernel's again: before the program is there, it may be any connection's that
somebody opens. What is given here lies below those (Linux gives 32,768 and more, others 49,152 and more).
"""

from __future__ import annotations

import os
import random
import socket
import sys
from typing import Final

_FIRST: Final = 12_000
_END: Final = 32_000
_PROCESSES: Final = 8


def _in_some_order() -> list[int]:
    """Those of this process. Two of pytest-xdist's have none in common: one could give what the other gave and nobody listens on yet."""
    ports = range(_FIRST, _END)
    if worker := os.environ.get("PYTEST_XDIST_WORKER", ""):
        ports = ports[int(worker.removeprefix("gw")) % _PROCESSES :: _PROCESSES]
    return random.SystemRandom().sample(
        ports, len(ports)
    )  # whatever seed the tests have: other runs are on this machine


_left: Final = _in_some_order()


def free_port() -> int:
    """One that nobody listens on, and that is given once."""
    while True:
        port = _left.pop()
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


def listening_everywhere(family: socket.AddressFamily = socket.AF_INET, *, dualstack: bool = False) -> socket.socket:
    """A socket that listens on every address of this machine. What comes from outside does not reach it: Linux gives it nothing but loopback's."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform == "linux":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dualstack)
    listener.bind(("", 0))
    listener.listen()
    return listener
