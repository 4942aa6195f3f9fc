"""Ids under which ComfyUI keeps bytes for whoever names them: those that a tenant chose lie below its root, those that its jobs made are known to be its own.

An id goes upstream as a path, so what ComfyUI says of it comes back in the client's words like any other name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from policy.call import UpstreamPath
from policy.namespace import Namespace
from policy.violation import Reason, Violation

if TYPE_CHECKING:
    from policy.rule_context import RuleContext

MAX_ID_LENGTH: Final = 128
MADE: Final = "made-ids"
"""Where the ids stand, among the files of its jobs that a tenant may see, that ComfyUI made itself. No folder of that name is."""

_RANDOM: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def own_id(value: str, names: Namespace) -> UpstreamPath:
    if not 1 <= len(value) <= MAX_ID_LENGTH:
        raise Violation(Reason.NAME_REFUSED, f"This id is not accepted: 1 to {MAX_ID_LENGTH} characters.")
    return names.path_to_upstream(value)


def id_to_upstream(value: str, context: RuleContext) -> UpstreamPath:
    """An id that a job of the tenant's showed as its result is ComfyUI's own; any other one lies in the tenant's namespace."""
    if _RANDOM.fullmatch(value) and context.jobs.has_temp_file(f"{MADE}/{value}"):
        return UpstreamPath(value)
    return own_id(value, context.names)


def made_ids(items: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Among the results of a node, the ids under which ComfyUI keeps bytes: random, so that nobody has them who was not told.

    SECURITY: nodes also show what the client gave them, so a name that could be guessed is none (test_results.py).
    """
    for item in items:
        value = item.get("id")
        if isinstance(value, str) and "filename" not in item and _RANDOM.fullmatch(value):
            yield f"{MADE}/{value}"
