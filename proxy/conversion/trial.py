"""Tries whether outputs can be converted here, as a gate would."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from proxy.conversion.order import Order
from proxy.conversion.pool import ConverterPool

_BYTES: Final = 1024**2
_PNG: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
"""Of one pixel."""


async def try_formats(formats: Iterable[str]) -> list[str]:
    """What goes wrong, a sentence for each format that cannot be written."""
    pool, found = ConverterPool(), []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "one.png"
            source.write_bytes(_PNG)
            for name in sorted(formats):
                answer = await pool.convert(Order(str(source), f"{source}.{name}", name, 0, _BYTES, _BYTES))
                if not answer.hash:
                    words = answer.failed or answer.refused or "the file is gone"
                    found.append(f"outputs cannot be given as {name} ({words}): functions that do so say that instead")
    finally:
        await pool.stop()
    return found
