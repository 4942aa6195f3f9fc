"""Request targets for the rows of the route table."""

from __future__ import annotations

from collections.abc import Iterator

from policy.routes import Route


def examples(route: Route) -> Iterator[str]:
    """Request targets that match the row, one per prefix."""
    for prefix in route.prefix.value:
        parts = []
        for part in route.template:
            if part.endswith("...}"):
                parts.append("some/file.js")
            elif part.startswith("{"):
                parts.append("example")
            else:
                parts.append(part)
        yield f"{prefix}/{'/'.join(parts)}"
