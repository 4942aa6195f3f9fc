"""Exit codes, and how a command ends with words on standard error."""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import NoReturn


class Exit(IntEnum):
    """What the process says to whoever started it. 2 is the command line parser's own."""

    OK = 0
    MISTAKE = 1
    """The configuration, or what a command was asked, is not usable."""
    PORT_IN_USE = 3
    UNENDED = 4
    """A part of the gate did not end, or failed, when it was stopped: a bug, of which the log tells."""


def fail(message: str, code: Exit = Exit.MISTAKE) -> NoReturn:
    """Ends the command. The message says what to do."""
    print(message, file=sys.stderr)
    sys.exit(code)
