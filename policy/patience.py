"""How much of a workflow is judged at once, on the event loop: most are quick, and a thread costs more than it saves for them.

A thread that computes holds the interpreter's lock, so the event loop waits for it up to 5 ms (sys.getswitchinterval) in any case. Measured: 500 nodes
of 78 kB take 2 ms of CPU at once and 4 ms in a thread, whose every object moves from one core to the other and back.
"""

from __future__ import annotations

import math
from typing import Any, Final

import orjson

AT_ONCE_BYTES: Final = 128 * 1024
AT_ONCE_PARTS: Final = 8192
"""Commas: 700 ordinary nodes have some 5,500. Objects and lists: they have some 4,000."""
AT_ONCE_EFFORT: Final = 3000
"""Microseconds, about, for what is not ordinary."""

_BYTES_OF_TEXT: Final = 8
_BYTES_OF_JSON: Final = 4
_PER_VALUE: Final = 3
_NO_SIGNS: Final = bytes(set(range(256)) - set(b",{["))


class TooMuch(Exception):
    """There is more to judge than is done at once."""


class Patience:
    """SECURITY: what an input costs that its class does not declare, or a class from outside, is up to the client: it is counted while it is judged
    (tests/security/test_heavy.py)."""

    __slots__ = ("_left",)

    def __init__(self, effort: float = math.inf) -> None:
        self._left = effort

    def spend(self, effort: float) -> None:
        """Raises TooMuch."""
        self._left -= effort
        if self._left < 0:
            raise TooMuch

    def spend_on(self, value: Any) -> None:
        """Before a value is looked into that may be of any size. Raises TooMuch."""
        if self._left == math.inf:
            return
        if type(value) is str:
            self.spend(_PER_VALUE + len(value) / _BYTES_OF_TEXT)
        elif type(value) is dict or type(value) is list:
            self.spend(_PER_VALUE + len(orjson.dumps(value)) / _BYTES_OF_JSON)
        else:
            self.spend(_PER_VALUE)


ENDLESS: Final = Patience()


def is_quick(raw: bytes) -> bool:
    """Whether it is worth while to try at once."""
    if len(raw) > AT_ONCE_BYTES:
        return False
    if len(raw) <= AT_ONCE_PARTS:
        return True
    signs = raw.translate(None, _NO_SIGNS)  # once through all of it, and not once for each sign
    commas = signs.count(b",")
    # SECURITY: lists within lists have no commas, and reading 128 KiB of them takes 12 ms (test_patience.py).
    return commas <= AT_ONCE_PARTS and len(signs) - commas <= AT_ONCE_PARTS
