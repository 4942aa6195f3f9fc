"""What is fit to be written to a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer


def printable(text: str) -> str:
    # SECURITY: node ids, class names and client ids are the client's, and a terminal obeys control characters
    # (tests/commands/test_audit.py, test_jobs.py::test_a_terminal_is_sent_no_control_characters).
    return "".join(character if character.isprintable() else "?" for character in text)


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """Gives what tells how far something is, on standard error: on a terminal one line that changes, elsewhere one for each change."""
    is_terminal, shown = sys.stderr.isatty(), ""

    def tell(text: str) -> None:
        nonlocal shown
        text = printable(text)
        if text != shown:
            lead = "\r" if is_terminal and shown else ""
            typer.echo(f"{lead}{text:<{len(shown)}}", err=True, nl=not is_terminal)
            shown = text

    try:
        yield tell
    finally:
        if is_terminal and shown:
            typer.echo(err=True)
