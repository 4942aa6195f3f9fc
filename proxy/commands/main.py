"""Where the program begins.

A gate that a service starts says no more than where its configuration is: it has no use for a parser, and would hold it as long as it runs
(tests/commands/test_footprint.py).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from proxy.commands.loading import load

_INTERRUPTED: Final = 130
"""What a shell makes of SIGINT."""


def main() -> None:
    config = named_config(sys.argv[1:])
    if config is None:
        from proxy.commands.command_line import app

        app()
        return
    try:
        load("serving", "run_gate")(config)
    except KeyboardInterrupt:  # before it listens for it
        sys.exit(_INTERRUPTED)


def named_config(arguments: Sequence[str]) -> Path | None:
    """That of `serve --config FILE` and `serve -c FILE`; None for everything else, which the command line reads (tests/commands/test_main.py)."""
    match arguments:
        case ["serve", "--config" | "-c", file] if file and not file.startswith("-"):
            return Path(file)
    return None
