"""What a page's browser sends and receives, as Chromium's own network log tells it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import CDPSession, ConsoleMessage, Page

QUIET_S = 1.0
_VOLATILE = re.compile(r"&?(?:rand|t)=[0-9.]+")
_ADDRESS = re.compile(r"https?://[^\s'\"]+")
_BUNDLE_LINE = re.compile(r"\s+at .*", re.DOTALL)


@dataclass
class Traffic:
    """Requests to one origin, without WebSockets. received_bytes: headers and bodies as they came over the wire."""

    origin: str
    requests: int = 0
    cached: int = 0
    received_bytes: int = 0
    failed: set[str] = field(default_factory=set)
    complaints: set[str] = field(default_factory=set)
    _open: dict[str, str] = field(default_factory=dict)
    _last: float = 0.0

    async def watch(self, page: Page) -> CDPSession:
        """Until the session that it returns is detached."""
        network = await page.context.new_cdp_session(page)
        network.on("Network.requestWillBeSent", self._sent)
        network.on("Network.requestServedFromCache", self._from_cache)
        network.on("Network.responseReceived", self._answered)
        network.on("Network.loadingFinished", self._finished)
        network.on("Network.loadingFailed", self._failed)
        await network.send("Network.enable")
        page.on("console", self._said)
        return network

    async def settle(self) -> None:
        """Returns when nothing was on its way for a while: what a measurement of a whole load has to wait for."""
        loop = asyncio.get_running_loop()
        while self._open or loop.time() - self._last < QUIET_S:
            await asyncio.sleep(0.05)

    def _sent(self, event: dict[str, Any]) -> None:
        url = event["request"]["url"]
        if url.startswith(self.origin):
            self.requests += 1
            self._open[event["requestId"]] = _path(event["request"]["method"], url)
            self._touch()

    def _from_cache(self, event: dict[str, Any]) -> None:
        if event["requestId"] in self._open:
            self.cached += 1

    def _answered(self, event: dict[str, Any]) -> None:
        name = self._open.get(event["requestId"])
        if name is None:
            return
        if event["response"]["status"] >= 400:
            self.failed.add(name)
        if event["response"].get("fromDiskCache"):
            self.cached += 1

    def _finished(self, event: dict[str, Any]) -> None:
        if self._open.pop(event["requestId"], None) is not None:
            self.received_bytes += int(event["encodedDataLength"])
            self._touch()

    def _failed(self, event: dict[str, Any]) -> None:
        name = self._open.pop(event["requestId"], None)
        if name is None:
            return
        self._touch()
        # The web UI leaves the answers of its POSTs unread, which Chromium tells as a failure too.
        if not name.startswith("POST "):
            self.failed.add(name)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type != "error":
            return
        place = message.location.get("url", "")
        if place.startswith("http") and not place.startswith(self.origin):
            return  # the web UI asks its makers for news, and nothing but loopback is reached here
        text = _BUNDLE_LINE.sub("", _ADDRESS.sub("(address)", message.text))
        if text.startswith(("Failed to load resource", "Refused to apply style")):
            # One and the same missing style sheet: with X-Content-Type-Options Chromium words it otherwise.
            text = "missing: " + (
                _path("GET", place) if text.startswith("Failed") else _path("GET", _url_in(message.text))
            )
        self.complaints.add(text)

    def _touch(self) -> None:
        self._last = asyncio.get_running_loop().time()


def _url_in(text: str) -> str:
    found = _ADDRESS.search(text)
    return found[0] if found else text


def _path(method: str, url: str) -> str:
    parts = urlsplit(url)
    query = _VOLATILE.sub("", parts.query)
    return f"{method} {parts.path}{'?' + query if query else ''}"
