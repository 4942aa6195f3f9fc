"""One tenant's jobs, by state and in order, so that no request looks through all that a tenant ever ran."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from policy.principal import TenantId

ANSWERED_S: Final = 1.0
"""How long a node that was answered is none that waits: packs look for an answer some times a second, and what then runs has its own event."""


Order = tuple[float, float]


class Ordered:
    """Ids in their order. Additions are at or near the end, so both lists hardly move."""

    def __init__(self) -> None:
        self._orders: list[Order] = []
        self._ids: list[str] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, order: Order, prompt_id: str) -> None:
        at = bisect_left(self._orders, order)
        self._orders.insert(at, order)
        self._ids.insert(at, prompt_id)

    def remove(self, order: Order) -> None:
        at = self.place(order)
        if at is not None:
            del self._orders[at], self._ids[at]

    def place(self, order: Order) -> int | None:
        """How many come before it, None when it is not here."""
        at = bisect_left(self._orders, order)
        return at if at < len(self._orders) and self._orders[at] == order else None

    def ids(self) -> list[str]:
        return list(self._ids)


_NOWHERE: Final[tuple[Order, Ordered | None]] = ((0.0, 0.0), None)


class TenantJobs:
    """What rules see of the registry (policy.rule_context.OwnJobs). has_file: whether a file of ComfyUI's temp folder is the tenant's."""

    def __init__(
        self,
        tenant: TenantId,
        has_file: Callable[[TenantId, str], bool],
        stopped_after_s: Callable[[str], int | None] = lambda prompt_id: None,
    ) -> None:
        self._tenant = tenant
        self._has_file = has_file
        self._stopped_after_s = stopped_after_s
        self._pending, self._running, self._finished = Ordered(), Ordered(), Ordered()
        self._hidden = Ordered()
        self._where: dict[str, tuple[Order, Ordered]] = {}
        self._nodes: dict[str, frozenset[str]] = {}
        self._answered: dict[tuple[str, str], float] = {}

    def owns(self, prompt_id: str) -> bool:
        return prompt_id in self._where

    def pending(self) -> list[str]:
        return self._pending.ids()

    def running(self) -> list[str]:
        return self._running.ids()

    def finished(self) -> list[str]:
        return self._finished.ids()

    def count_finished(self) -> int:
        return len(self._finished)

    def count_unfinished(self) -> int:
        return len(self._pending) + len(self._running)

    def place_of(self, prompt_id: str) -> int:
        """The job's place among the tenant's own, from 1: those that ended, then what runs, then what waits. 0 when it is none of them."""
        before = 0
        order, where = self._where.get(prompt_id, _NOWHERE)
        for each in (self._finished, self._running, self._pending):
            if each is where:
                place = each.place(order)
                return 0 if place is None else before + place + 1
            before += len(each)
        return 0

    def position_of(self, prompt_id: str) -> int:
        """The job's place among the tenant's own that wait, from 1. 0 when it is none of them."""
        order, where = self._where.get(prompt_id, _NOWHERE)
        place = self._pending.place(order) if where is self._pending else None
        return 0 if place is None else place + 1

    def stopped_after_s(self, prompt_id: str) -> int | None:
        return self._stopped_after_s(prompt_id) if self.owns(prompt_id) else None

    def running_nodes(self) -> dict[str, frozenset[str]]:
        self._answered = _recent(self._answered)
        found = {prompt_id: self._nodes.get(prompt_id, frozenset()) for prompt_id in self._running.ids()}
        left = {
            prompt_id: frozenset(node for node in nodes if (prompt_id, node) not in self._answered)
            for prompt_id, nodes in found.items()
        }
        return {prompt_id: nodes for prompt_id, nodes in left.items() if nodes}

    def answered(self, prompt_id: str, node_id: str) -> None:
        """A node that waits gets its answer. One that waits again, as for the next of a list, is there again after a moment."""
        self._answered = _recent(self._answered)
        self._answered[prompt_id, node_id] = time.monotonic()

    def is_at(self, prompt_id: str, nodes: frozenset[str]) -> None:
        """The job runs these nodes now; none when it has come to its end."""
        if self.owns(prompt_id):
            self._nodes[prompt_id] = nodes

    def has_temp_file(self, name: str) -> bool:
        return self._has_file(self._tenant, name)

    def put(self, prompt_id: str, order: Order, *, is_running: bool, has_ended: bool, is_deleted: bool) -> None:
        """A job is new, or what is known of it has changed."""
        where = self._pending
        if has_ended:
            self._nodes.pop(prompt_id, None)
            where = self._hidden if is_deleted else self._finished
        elif is_running:
            where = self._running
        known = self._where.get(prompt_id)
        if known is not None:
            if known == (order, where):
                return
            known[1].remove(known[0])
        where.add(order, prompt_id)
        self._where[prompt_id] = (order, where)

    def remove(self, prompt_id: str) -> None:
        known = self._where.pop(prompt_id, None)
        self._nodes.pop(prompt_id, None)
        if known is not None:
            known[1].remove(known[0])


def _recent(answered: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    long_ago_s = time.monotonic() - ANSWERED_S
    return {each: at_s for each, at_s in answered.items() if at_s > long_ago_s}
