"""Judges a page by axe-core's rules of WCAG 2.2, levels A and AA, and by its best practices."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from tests.clients.installed import node_folder

HERE = Path(__file__).parent
NODE_FILES = (HERE / "node" / "package.json", HERE / "node" / "package-lock.json")


@cache
def _axe() -> str:
    return (node_folder("axe-core", NODE_FILES) / "node_modules" / "axe-core" / "axe.min.js").read_text(
        encoding="utf-8"
    )


async def complaints(page: Page) -> list[str]:
    """One line for each rule and element. The evaluator's own script is no part of the page, so its policy says nothing of it."""
    await page.evaluate(_axe())
    found: Any = await page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{rule['id']}: {rule['help']}: {' '.join(map(str, node['target']))}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
