"""Pictures that ComfyUI makes for a call (previews, channels, masks): it does so on its event loop, so one at a time, tenants in turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Final

from policy.principal import TenantId
from proxy.errors import LimitExceeded
from proxy.upload import UploadStream

MAX_WAITING: Final = 32
"""Of one tenant."""
WAIT_S: Final = 60.0
_RETRY_S: Final = 3.0


class PictureLane:
    """SECURITY: a picture of few bytes and many pixels keeps ComfyUI from everybody for seconds (tests/security/test_previews.py)."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: OrderedDict[TenantId, deque[asyncio.Future[None]]] = OrderedDict()

    def turn(self, tenant: TenantId) -> Turn:
        return Turn(self, tenant)

    async def take(self, tenant: TenantId) -> None:
        """Raises LimitExceeded(too-many-pictures) when too many of the tenant's wait, or for too long."""
        if not self._is_taken:
            self._is_taken = True
            return
        waiting = self._waiting.setdefault(tenant, deque())
        if len(waiting) >= MAX_WAITING:
            raise _too_many()
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            async with asyncio.timeout(WAIT_S):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release()
            elif turn in waiting:
                waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise _too_many() from None
            raise

    def release(self) -> None:
        """The next one is the next tenant's, so that who asks for many delays a neighbour by one."""
        while self._waiting:
            tenant, waiting = self._waiting.popitem(last=False)
            while waiting:
                turn = waiting.popleft()
                if not turn.done():
                    if waiting:
                        self._waiting[tenant] = waiting
                    turn.set_result(None)
                    return
        self._is_taken = False


class Turn:
    """One picture's; a context manager that ends it."""

    def __init__(self, lane: PictureLane, tenant: TenantId) -> None:
        self._lane = lane
        self._tenant = tenant
        self._is_mine = False

    async def take(self) -> None:
        await self._lane.take(self._tenant)
        self._is_mine = True

    def release(self) -> None:
        """A second time does nothing."""
        if self._is_mine:
            self._is_mine = False
            self._lane.release()

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


async def wait_for(turn: Turn, content: object) -> None:
    """ComfyUI begins with a mask when it has all of it; its client may take long to send it, and delays nobody."""
    if isinstance(content, UploadStream):
        content.before_end = turn.take
    else:
        await turn.take()


def _too_many() -> LimitExceeded:
    return LimitExceeded(
        "Too many pictures of this tenant wait to be made smaller. Ask for fewer at once.",
        limit=f"{MAX_WAITING} pictures of the tenant",
        retry_after_s=_RETRY_S,
        reason="too-many-pictures",
    )
