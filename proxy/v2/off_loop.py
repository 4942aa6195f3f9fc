"""Work beside the event loop, where there is much of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

LARGE_BYTES: Final = 256 * 1024
"""Documents of more than that are read in a thread."""

T = TypeVar("T")


async def off_loop(function: Callable[..., T], *arguments: object, size: int) -> T:
    """What the function makes of so many bytes."""
    return function(*arguments) if size <= LARGE_BYTES else await asyncio.to_thread(function, *arguments)
