"""Who may hold a WebSocket when all places are taken: the one that was unused for longest gives way, so that a person can open one more tab."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from policy.principal import Principal, TenantId
from proxy.http.errors import LimitExceeded
from proxy.http.websocket import Close
from proxy.websocket.send_queue import SendQueue

GAVE_WAY: Final = Close(4429, "too many WebSockets are open: the one that was unused for longest gave way")
MAX_GAVE_WAY: Final = 1024
"""Clients that are remembered. One that is forgotten may take a place from another once more."""
LEAVES_WITHIN_S: Final = 10.0
"""A socket whose client does not answer its close is cut off well before that."""

Slot = Callable[[Principal], Awaitable[AbstractContextManager[object]]]


@dataclass(slots=True, eq=False)
class Place:
    principal: Principal
    client_id: str
    send_queue: SendQueue
    slot: AbstractContextManager[object] | None = None
    left: asyncio.Event | None = None
    """Set when it is free again, where somebody waits for that."""


class Places:
    """slot: claims one more socket of the principal, or raises LimitExceeded. working: the tenant's client ids that have unfinished jobs."""

    def __init__(self, slot: Slot, working: Callable[[TenantId], frozenset[str]]) -> None:
        self._slot = slot
        self._working = working
        self._taken: set[Place] = set()
        self._gave_way: dict[tuple[TenantId, str], None] = {}

    async def take(self, principal: Principal, client_id: str, send_queue: SendQueue) -> Place:
        """A place, until `leave`. Raises LimitExceeded when all are taken by clients that work, or that came after this one gave way."""
        place = Place(principal, client_id, send_queue)
        try:
            slot = await self._slot(principal)
        except LimitExceeded as full:
            await self._make_room(place, full)
            slot = await self._slot(principal)
        slot.__enter__()
        place.slot = slot
        self._gave_way.pop((principal.tenant, client_id), None)
        self._taken.add(place)
        return place

    def leave(self, place: Place) -> None:
        """It is free again; a second time does nothing."""
        slot, place.slot = place.slot, None
        if slot is not None:
            slot.__exit__(None, None, None)
        self._taken.discard(place)
        if place.left is not None:
            place.left.set()

    async def _make_room(self, place: Place, full: LimitExceeded) -> None:
        tenant, working = place.principal.tenant, self._working(place.principal.tenant)
        key = (tenant, place.client_id)
        idle = [
            other
            for other in self._taken
            if other.principal.tenant == tenant
            and not other.send_queue.is_closed
            # The same client anew: its network died, and the gate has not noticed yet.
            and (other.client_id == place.client_id or other.client_id not in working)
        ]
        own = [other for other in idle if other.principal.subject == place.principal.subject]
        candidates = own or ([] if full.is_of_key else idle)
        same = [other for other in own if other.client_id == place.client_id]
        # A page whose socket gave way comes back several times a second. It waits for a free place, or until it has a job:
        # else two tabs would take one place from each other for ever.
        if not candidates or (not same and key in self._gave_way and place.client_id not in working):
            raise full
        leaving = min(same or candidates, key=lambda other: other.send_queue.used_at_s)
        if not same:
            self._gave_way[tenant, leaving.client_id] = None
            if len(self._gave_way) > MAX_GAVE_WAY:
                del self._gave_way[next(iter(self._gave_way))]
        leaving.left = leaving.left or asyncio.Event()
        leaving.send_queue.close(GAVE_WAY, at_once=True)
        try:
            async with asyncio.timeout(LEAVES_WITHIN_S):
                await leaving.left.wait()
        except TimeoutError:
            raise full from None
