"""Whether rows out of data fit together, and beside ComfyUI's own: what an operator's row meets that it must not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Final

from policy.custom_routes import Kind, PackSettings, RouteSettings
from policy.path_patterns import Pattern, is_parameter, meet
from policy.routes import Route

GATE: Final = "gate"


def find_conflicts(
    rows: Sequence[RouteSettings], chosen: Sequence[str], packs: Mapping[str, PackSettings], table: Sequence[Route]
) -> list[tuple[int, str]]:
    """What is wrong with the operator's own rows, each with its place in the list. chosen: the packs that the operator named.

    packs: all that come with the gate, since what they keep closed stays closed whether they are chosen or not.
    """
    return [(index, words) for index, row in enumerate(rows) for words in _find(index, row, rows, chosen, packs, table)]


def _find(
    index: int,
    row: RouteSettings,
    rows: Sequence[RouteSettings],
    chosen: Sequence[str],
    packs: Mapping[str, PackSettings],
    table: Sequence[Route],
) -> Iterator[str]:
    if row.first == GATE:
        yield "paths under /gate/ are the gate's own"
    yield from _meet_closed(row, packs)
    own = _meet_table(row, table)
    if own is not None:
        yield own
    for name in chosen:
        met = next((other for other in packs[name].routes if _share(row, other)), None) if name in packs else None
        if met is not None:
            yield f"{row.path} meets {met.path}, which the pack {name} has already"
    for earlier, other in enumerate(rows[:index]):
        if _share(row, other):
            yield f"{row.path} meets {other.path} of routes[{earlier}]"


def _meet_closed(row: RouteSettings, packs: Mapping[str, PackSettings]) -> Iterator[str]:
    """SECURITY: a pattern, or a row of a weaker kind, opens nothing that a pack file keeps closed
    (test_route_conflicts.py::test_what_a_pack_keeps_closed_is_opened_by_no_row)."""
    if row.kind is Kind.NEVER:
        return
    for name, pack in packs.items():
        for other in pack.routes:
            if not _share(row, other):
                continue
            if other.kind is Kind.NEVER:
                yield f"{row.path} meets {other.path} of the pack {name}, which is opened to nobody: {other.note}"
            elif other.kind is Kind.ADMIN and row.kind is not Kind.ADMIN:
                yield f"{row.path} meets {other.path} of the pack {name}, which is for admins: {other.note}"


def _meet_table(row: RouteSettings, table: Sequence[Route]) -> str | None:
    for route in table:
        if any(meet(mine, pattern) for mine in row.patterns for pattern in route.patterns):
            return f"{row.path} meets {route.name}, a route of ComfyUI's own"
    lead = _lead(row.pattern)
    if row.parameters and any(pattern[: len(lead)] == lead for route in table for pattern in route.patterns):
        return f"/{'/'.join(lead)}/ is ComfyUI's own: name the path without a parameter, since its next version may have more there"
    return None


def _lead(pattern: Pattern) -> Pattern:
    """What stands before the first parameter."""
    return tuple(takewhile(lambda segment: not is_parameter(segment), pattern))


def _share(one: RouteSettings, other: RouteSettings) -> bool:
    """Whether some call is of both."""
    has_method = not set(one.methods).isdisjoint(other.methods)
    return has_method and any(meet(mine, theirs) for mine in one.patterns for theirs in other.patterns)
