"""The gate's database, for commands beside a gate that may run or not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from proxy.commands.exits import fail
from proxy.config import ConfigError, load_config
from proxy.persistence.chosen import chosen_database, setting_of
from proxy.persistence.operations import Database, DatabaseUnavailable, StateError

T = TypeVar("T")


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
