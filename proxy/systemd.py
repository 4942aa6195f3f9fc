"""systemd's readiness and watchdog protocol (sd_notify(3)): a datagram to the socket that the service manager names. Elsewhere it does nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Final

_MIN_INTERVAL_S: Final = 0.05


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
