"""Durations and rates as people write them, turned into numbers once, when the configuration is read."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict

from proxy.config.rates import read_rates

_DURATION = re.compile(
    r"(?:(\d+)w)?\s*(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m(?!s))?\s*(?:(\d+(?:\.\d+)?)s)?\s*(?:(\d+)ms)?"
)
_DURATION_FACTORS: Final = (7 * 86400, 86400, 3600, 60, 1, 0.001)


class Settings(BaseModel):
    """A section of the configuration: frozen, and unknown keys are mistakes. Most are read as parts of the whole alone: a validator of their own, which is
    a tenth of a megabyte for some, is made when it is asked for.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, hide_input_in_errors=True, defer_build=True
    )


def parse_duration(text: Any) -> float:
    """Seconds from "250ms", "30s", "5m", "24h", "90d", "1h30m" or a number. Raises ValueError."""
    if isinstance(text, int | float) and not isinstance(text, bool) and 0 <= text < math.inf:
        return float(text)
    found = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if not found or not any(found.groups()):
        raise ValueError(f"write a duration such as 30s, 5m, 24h or 90d{_hint(text)}")
    return sum(
        float(amount) * factor for amount, factor in zip(found.groups(), _DURATION_FACTORS, strict=True) if amount
    )


def _hint(text: Any) -> str:
    is_number = isinstance(text, str) and text.strip().isdecimal()
    return f': "{text.strip()}" may mean {text.strip()}d or {text.strip()}s' if is_number else ""


def parse_rates(text: Any) -> str:
    """Checks "30/minute; 500/day" and gives it back unchanged. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError('write a rate such as "30/minute" or "30/minute; 500/day"')
    read_rates(text)
    return text


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds."""

Rates = Annotated[str, BeforeValidator(parse_rates)]
