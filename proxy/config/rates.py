"""Rates as people write them: "30/minute", "500 per 2 days", several of them with a semicolon between."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# A month has 30 days and a year twelve of those months, as in the limits library, whose spellings these are.
_SECONDS: Final = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "month": 2_592_000,
    "year": 31_104_000,
}
_RATE: Final = re.compile(rf"(\d+)\s*(?:/|per)\s*(\d*)\s*({'|'.join(_SECONDS)})s?", re.ASCII | re.IGNORECASE)
_SEPARATOR: Final = re.compile("[,;|]")


class Rate(NamedTuple):
    """500 per 2 days: amount, every, unit."""

    amount: int
    every: int
    unit: str

    @property
    def window_s(self) -> int:
        return self.every * _SECONDS[self.unit]

    @property
    def span(self) -> str:
        """For people: "minute", "2 days"."""
        return self.unit if self.every == 1 else f"{self.every} {self.unit}s"


def read_rates(text: str) -> list[Rate]:
    """Raises ValueError."""
    return [_read(part, text) for part in _SEPARATOR.split(text)]


def _read(part: str, text: str) -> Rate:
    found = _RATE.fullmatch(part.strip())
    if found is None:
        raise ValueError(f'{text!r} is no rate: write "30/minute" or "30/minute; 500/day"')
    amount, count, unit = found.groups()
    return Rate(int(amount), int(count or 1) or 1, unit.lower())
