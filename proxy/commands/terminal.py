"""What is fit to be written to a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    # SECURITY: node ids, class names and client ids are the client's, and a terminal obeys control characters
    # (tests/commands/test_audit.py, test_jobs.py::test_a_terminal_is_sent_no_control_characters).
    return "".join(character if character.isprintable() else "?" for character in text)
