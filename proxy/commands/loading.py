"""Modules of commands, each loaded when it is wanted."""

from __future__ import annotations

import gc
import os
from importlib import import_module
from typing import Any


def load(module: str, attribute: str) -> Any:
    """module: of proxy/commands."""
    # Else pydantic looks through every installed package for plugins, which takes a tenth of the start too.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()  # modules stay: to look through them again and again for garbage takes a tenth of the start
    try:
        return getattr(import_module(f"proxy.commands.{module}"), attribute)
    finally:
        gc.enable()
