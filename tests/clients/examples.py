"""The examples of docs/clients.md and other pages, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
_EXAMPLE = re.compile(r"<!-- example: ([a-z_]+\.[a-z]+) -->\n```[a-z]+\n(.*?)```\n", re.DOTALL)


def read_examples(page: Path = PAGE) -> dict[str, str]:
    """Text by file name."""
    found = _EXAMPLE.findall(page.read_text(encoding="utf-8"))
    examples = dict(found)
    assert len(examples) == len(found), "two examples have one name"
    return examples
