"""The log of ComfyUI shows every tenant's work, so tenants get one line that says whose it is, in the shapes that the web UI's log panel reads.

Nothing is asked of ComfyUI, and nobody is subscribed there. Shapes: api_server/routes/internal/internal_routes.py.
"""

from __future__ import annotations

from typing import Final

from policy.call import ClientReply
from policy.rule_context import RuleInput
from policy.rules.jobs import EMPTY

LINE: Final = "The log of ComfyUI is shown to admins of the gate."
_SIZE: Final = {"cols": 80, "rows": 24}


def text(request: RuleInput) -> ClientReply:
    """GET /internal/logs: one text, which the web UI puts into its error reports."""
    return ClientReply(body=f"{LINE}\n")


def entries(request: RuleInput) -> ClientReply:
    """GET /internal/logs/raw: lines as `{"t": time, "m": message}`, and the size of a terminal. The line is of no time."""
    return ClientReply(body={"entries": [{"t": "", "m": f"{LINE}\n"}], "size": dict(_SIZE)})


def subscribe(request: RuleInput) -> ClientReply:
    """PATCH /internal/logs/subscribe: empty, as for a client id that ComfyUI does not know; no line ever follows."""
    return EMPTY
