"""Which lines of the request log are written when one caller is refused again and again: the first of each minute, then their number."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.http.request_record import RequestRecord

LIMITED: Final = 429
"""The status of what is left out."""
LINES: Final = 10
"""Of one caller and reason in a minute."""
WINDOW_S: Final = 60.0
MAX_CALLERS: Final = 4096


@dataclass(slots=True)
class _Seen:
    ends_at_s: float
    lines: int = 0
    left_out: int = 0


class Sampler:
    """Counts refusals for limits; everything else is written. The metrics count all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._callers: OrderedDict[tuple[str, str, str], _Seen] = OrderedDict()

    def left_out(self, record: RequestRecord) -> int | None:
        """None when the line of this request is to be left out; else how many of its kind were before it."""
        if record.status != LIMITED or record.principal is None:
            return 0
        context, now_s = (record.principal.tenant, record.principal.subject, record.reason), self._clock()
        seen = self._callers.get(context)
        if seen is None:
            if len(self._callers) >= MAX_CALLERS:
                self._callers.popitem(last=False)
            seen = self._callers[context] = _Seen(now_s + WINDOW_S)
        self._callers.move_to_end(context)
        if now_s >= seen.ends_at_s:
            seen.ends_at_s, seen.lines = now_s + WINDOW_S, 0
        if seen.lines >= LINES:
            seen.left_out += 1
            return None
        seen.lines += 1
        before, seen.left_out = seen.left_out, 0
        return before
