"""ComfyUI's /object_info, kept: read when the gate connects, and again when somebody wants to see it and it may have changed (a new model)."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from dataclasses import dataclass, field
from typing import Final

from multidict import CIMultiDict

from policy.call import Opaque, UpstreamCall
from policy.catalogue import Catalogue, read_catalogue_text
from proxy.http import hdrs
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.memory import give_back_memory
from proxy.tasks import Tasks
from proxy.upstream.client import MAX_REPLY_BYTES, Upstream

TIME_LIMIT_S: Final = 60.0
FRESH_S: Final = 10.0
"""How long a copy is shown without asking again: ComfyUI serves nothing else for 200 ms while it builds one, so many callers share a read."""

PATIENCE_S: Final = 5.0
"""How long a caller waits for a newer copy where there is an older one: a busy ComfyUI answers late."""

_log = logging.getLogger("comfygate")
_CALL = UpstreamCall("GET", (Opaque("object_info"),))
_HEADERS: Final = CIMultiDict({hdrs.ACCEPT_ENCODING: "identity"})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """version: of what ComfyUI said, changes exactly when that does."""

    catalogue: Catalogue = field(default_factory=Catalogue)
    version: str = ""
    read_at_s: float = float("-inf")

    @property
    def is_known(self) -> bool:
        return bool(self.version)


class CatalogueSource:
    """The newest snapshot. Many requests that want a fresh one wait for one read. name: for the log."""

    def __init__(self, upstream: Upstream, name: str = "ComfyUI") -> None:
        self._upstream = upstream
        self._name = name
        self._lock = asyncio.Lock()
        self._tasks = Tasks()
        self._renewal: asyncio.Task[None] | None = None
        self.snapshot = Snapshot()

    async def fresh(self) -> Snapshot:
        """A snapshot at most FRESH_S old; the older one when ComfyUI does not answer soon. Raises when there never was one."""
        if not self.snapshot.is_known:
            await self._renew()
        elif time.monotonic() - self.snapshot.read_at_s > FRESH_S:
            if self._renewal is None or self._renewal.done():
                self._renewal = self._tasks.start(self._renew(), "catalogue")
            await asyncio.wait((self._renewal,), timeout=PATIENCE_S)
        return self.snapshot

    async def known(self) -> Snapshot:
        """Any snapshot: the first read is waited for. Raises UpstreamUnavailable or UpstreamTimeout when there is none."""
        if not self.snapshot.is_known:
            await self._renew()
        return self.snapshot

    async def stop(self) -> None:
        await self._tasks.stop()

    async def renew(self, comfyui: str = "") -> None:
        """Reads again now; for a ComfyUI that was restarted. comfyui: which one, where there are several (MergedCatalogue)."""
        self.snapshot = Snapshot(self.snapshot.catalogue, self.snapshot.version)
        await self._renew()

    async def _renew(self) -> None:
        wanted_s = time.monotonic() - FRESH_S
        async with self._lock:
            if self.snapshot.read_at_s > wanted_s:
                return  # somebody else read it while this call waited
            try:
                status, body = await self._ask()
            except (UpstreamUnavailable, UpstreamTimeout):
                if not self.snapshot.is_known:
                    raise
                return
            version = hashlib.sha256(body).hexdigest()[:32]
            catalogue: Catalogue | None = self.snapshot.catalogue
            if status != 200 or version != self.snapshot.version:
                catalogue = await asyncio.to_thread(_read, body, self._name) if status == 200 else None
            if catalogue is None:
                if not self.snapshot.is_known:
                    raise UpstreamUnavailable("ComfyUI does not describe its nodes yet.", status=503)
                return
            self.snapshot = Snapshot(catalogue, version, time.monotonic())

    async def _ask(self) -> tuple[int, bytes]:
        """Raises UpstreamUnavailable, UpstreamTimeout, ReplyTooLarge."""
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                async with await self._upstream.open(_CALL, _HEADERS, time_limit_s=TIME_LIMIT_S) as stream:
                    return stream.status, await stream.body(MAX_REPLY_BYTES)
        except TimeoutError as error:
            raise UpstreamTimeout from error


def _read(body: bytes, name: str) -> Catalogue | None:
    catalogue = read_catalogue_text(body)
    if catalogue is not None:
        _log.info("read %d node classes from %s", len(catalogue.classes), name)
    give_back_memory()
    return catalogue
