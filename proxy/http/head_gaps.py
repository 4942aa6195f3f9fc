"""A head with gaps where the values of fields stand that differ from one request of a connection to the next where nothing else does: a head that fits
is the one that was read before, with these values in it, and need not be read again (proxy/http/request_reader.py).

SECURITY: between the same bytes stands a value that no reader could take for more than that (tests/proxy/http/test_request_reader_again.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from multidict import CIMultiDict, istr

LENGTH: Final = istr("Content-Length")
_KEY: Final = istr("Idempotency-Key")
USUAL_VALUES: Final = {LENGTH: re.compile(rb"[1-9][0-9]{0,11}"), _KEY: re.compile(rb"[!-~]{1,255}")}
"""Of fields that differ from one request to the next where nothing else does: a length of a body, and what has no white space."""
_USUAL_LINES: Final = {
    name: re.compile(rb"\r\n%s:[ \t]*(%s)[ \t]*(?=\r\n)" % (name.encode(), value.pattern), re.IGNORECASE)
    for name, value in USUAL_VALUES.items()
}


@dataclass(slots=True)
class Gaps:
    """A head without the values of the fields of USUAL_VALUES that it has. first: what stands before the first value; behind: by field, what reads its
    value, and what stands from there to the next one."""

    first: bytes
    behind: tuple[tuple[istr, Callable[[bytes, int], re.Match[bytes] | None], bytes], ...]

    def read(self, head: bytes) -> list[tuple[istr, str]] | None:
        """What stands there; None where it is another head, or one that is to be read with care."""
        if not head.startswith(self.first):
            return None
        at, values = len(self.first), []
        for name, match, piece in self.behind:
            value = match(head, at)
            if value is None or not head.startswith(piece, at := value.end()):
                return None
            values.append((name, value[0].decode("ascii")))
            at += len(piece)
        return values if at == len(head) else None


def gaps_of(head: bytes, headers: CIMultiDict[str]) -> Gaps | None:
    """None where no field stands as those do that differ from request to request, once and on one line."""
    found = [(name, line) for name, usual in _USUAL_LINES.items() if (line := usual.search(head)) is not None]
    if not found or any(headers.getall(name, []) != [line[1].decode("ascii")] for name, line in found):
        return None
    found.sort(key=lambda each: each[1].start())
    ends = [*(line.start(1) for _, line in found[1:]), len(head)]
    behind = tuple(
        (name, USUAL_VALUES[name].match, head[line.end(1) : end]) for (name, line), end in zip(found, ends, strict=True)
    )
    return Gaps(head[: found[0][1].start(1)], behind)
