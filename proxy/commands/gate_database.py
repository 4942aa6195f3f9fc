"""The gate's database, for commands beside a gate that may run or not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from proxy.commands.exits import fail
from proxy.config import ConfigError, load_config
from proxy.persistence.chosen import chosen_database, setting_of
from proxy.persistence.operations import Database, DatabaseUnavailable, StateError

T = TypeVar("T")
LOOK_S: Final = 1.0
"""A change is heard of at once; this is for leases that end."""


def ask_database(config: Path, work: Callable[[Database], Awaitable[T]]) -> T:
    """Opens the database that the configuration names, as a gate left it, and ends the command with a sentence where that cannot be."""
    try:
        loaded = load_config(config)
        database = chosen_database(loaded, is_guest=True)
    except ConfigError as error:
        fail(str(error))

    async def run() -> T:
        await database.open()
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except (StateError, DatabaseUnavailable) as error:
        fail(f"The gate's database cannot be used ({setting_of(loaded)}): {error}.")


async def until(
    database: Database, ask: Callable[[], Awaitable[T]], is_enough: Callable[[T], bool], wait_s: float
) -> T:
    """The first answer that is enough, or the last one in that time."""
    changed = asyncio.Event()
    ends_hearing = database.on_change(changed.set)
    deadline_s = time.monotonic() + wait_s
    try:
        while True:
            changed.clear()
            found = await ask()
            left_s = deadline_s - time.monotonic()
            if is_enough(found) or left_s <= 0:
                return found
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, LOOK_S)):
                    await changed.wait()
    finally:
        ends_hearing()
