"""Where ComfyUI's host name leads: a name may stand for several addresses, and one of them may not answer (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import Final

from aiohappyeyeballs import AddrInfoType, start_connection

KEPT_S: Final = 60.0
"""How long what a name stands for is believed; after a failure it is asked anew."""
NEXT_ADDRESS_AFTER_S: Final = 0.25
"""RFC 8305, 5: so long an address may be silent before the next one is tried beside it."""


class HostAddresses:
    """host: a name, or an address, which is not looked up."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._is_name = not _is_address(host)
        self._found: list[AddrInfoType] = []
        self._found_at_s = 0.0

    async def connect(self) -> socket.socket | None:
        """A connected socket; None where the host is an address, for which asyncio makes its own. Raises OSError."""
        if not self._is_name:
            return None
        try:
            return await start_connection(await self._resolve(), happy_eyeballs_delay=NEXT_ADDRESS_AFTER_S)
        except OSError:
            self._found = []
            raise

    async def _resolve(self) -> list[AddrInfoType]:
        loop = asyncio.get_running_loop()
        if not self._found or loop.time() - self._found_at_s > KEPT_S:
            found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            self._found, self._found_at_s = list(found), loop.time()
        return self._found


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
