"""One at a time per gate, tenants in turn: who asks for much delays a neighbour by one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Any, ClassVar

from policy.principal import TenantId
from proxy.http.errors import LimitExceeded


class Lane:
    """max_waiting: of one tenant. wait_s: at most. refusal: what those are told who would wait beyond either."""

    max_waiting: ClassVar[int]
    wait_s: ClassVar[float]

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: OrderedDict[TenantId, deque[asyncio.Future[None]]] = OrderedDict()

    def refusal(self) -> LimitExceeded:
        raise NotImplementedError

    def turn(self, tenant: TenantId) -> Turn:
        return Turn(self, tenant)

    async def take(self, tenant: TenantId) -> None:
        """Raises LimitExceeded when too many of the tenant's wait, or for too long."""
        if not self._is_taken:
            self._is_taken = True
            return
        waiting = self._waiting.setdefault(tenant, deque())
        if len(waiting) >= self.max_waiting:
            raise self.refusal()
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            async with asyncio.timeout(self.wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release()
            elif turn in waiting:
                waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise self.refusal() from None
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
    """A place in the lane; a context manager that ends it."""

    def __init__(self, lane: Lane, tenant: TenantId) -> None:
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

    def hand_to(self, work: asyncio.Future[Any]) -> None:
        """The turn ends with that work, and not with whoever began it."""
        if self._is_mine:
            self._is_mine = False
            work.add_done_callback(self._ended)

    def _ended(self, work: asyncio.Future[Any]) -> None:
        if not work.cancelled():
            work.exception()  # nobody else asks for it
        self._lane.release()

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
