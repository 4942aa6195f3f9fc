"""The queue of prompts and the history: one heap of tuples and one dict, both in memory, both shared by everybody.

Items are `(number, prompt_id, graph, extra_data, outputs, sensitive)`, ordered by number, then id, then as they came.
"""

from __future__ import annotations

import copy
import heapq
import threading
from collections.abc import Callable
from typing import Any

Item = tuple[Any, ...]
MAX_HISTORY = 10_000


class PromptQueue:
    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._pending: list[tuple[Any, Any, int, Item]] = []
        self._arrived = 0
        self._running: dict[int, Item] = {}
        self._taken = 0
        self._is_closed = False
        self._flags: dict[str, Any] = {}
        self.history: dict[str, dict[str, Any]] = {}

    def put(self, item: Item) -> None:
        with self._lock:
            heapq.heappush(self._pending, (item[0], item[1], self._arrived, item))
            self._arrived += 1
            self._on_change()
            self._changed.notify()

    def take(self) -> tuple[Item, int] | None:
        """Waits for the next item; None when the queue is closed or a flag wants attention."""
        with self._changed:
            while not self._pending and not self._is_closed and not self._flags:
                self._changed.wait()
            if self._is_closed or not self._pending:
                return None
            item = heapq.heappop(self._pending)[-1]
            ticket = self._taken
            self._running[ticket] = copy.deepcopy(item)
            self._taken += 1
            self._on_change()
            return item, ticket

    def finish(self, ticket: int, result: dict[str, Any], status: dict[str, Any]) -> None:
        with self._lock:
            item = self._running.pop(ticket)
            if len(self.history) > MAX_HISTORY:
                self.history.pop(next(iter(self.history)))
            entry = {"prompt": item[:5], "outputs": {}, "status": copy.deepcopy(status)}
            self.history[item[1]] = entry | result
            self._on_change()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def remaining(self) -> int:
        with self._lock:
            return len(self._pending) + len(self._running)

    def snapshot(self) -> tuple[list[Item], list[Item]]:
        """Running and pending items without credentials; pending is the raw heap array, not sorted."""
        with self._lock:
            return [item[:5] for item in self._running.values()], [entry[-1][:5] for entry in self._pending]

    def is_running(self, prompt_id: Any) -> bool:
        with self._lock:
            return any(item[1] == prompt_id for item in self._running.values())

    def wipe(self) -> None:
        with self._lock:
            self._pending = []
            self._on_change()

    def delete(self, prompt_id: Any) -> bool:
        """Removes the first pending item with that id, whoever sent it."""
        with self._lock:
            for index, entry in enumerate(self._pending):
                if entry[1] == prompt_id:
                    if len(self._pending) == 1:
                        self.wipe()
                    else:
                        del self._pending[index]
                        heapq.heapify(self._pending)
                    self._on_change()
                    return True
        return False

    def read_history(self, max_items: int | None = None, offset: int = -1) -> dict[str, Any]:
        with self._lock:
            entries = list(self.history.items())
        if offset < 0 and max_items is not None:
            offset = len(entries) - max_items
        entries = entries[max(offset, 0) :]
        if max_items is not None:
            # ComfyUI stops after the first entry that reaches the limit, so zero and below still give one.
            entries = entries[: max(max_items, 1)]
        return dict(entries)

    def wipe_history(self) -> None:
        with self._lock:
            self.history = {}

    def set_flag(self, name: str, value: Any) -> None:
        with self._lock:
            self._flags[name] = value
            self._changed.notify()

    def take_flags(self) -> dict[str, Any]:
        with self._lock:
            flags, self._flags = self._flags, {}
            return flags
