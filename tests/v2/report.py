"""What the rows of surface.py came to, kept as test output; tests/clients/report.py makes a table of docs/compatibility.md of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "test-output" / "compatibility-v2"
SERVERS = ("comfygate", "comfy-api-proxy")
BY_LUCK = "now and then it is"
"""An outcome that any client may meet, and one run does not show to all of them."""
_KINDS = {"sync": "`Comfy`", "async": "`AsyncComfy`", "node": "TypeScript"}
_HEAD = """
## The Comfy API v2

What users of Comfy-Org's SDKs do, `comfy-sdk` 0.5.0 (sync and async) and `@comfyorg/sdk` 0.1.9, run by `tests/v2/` through the gate and through
Comfy-Org's own server for self-hosting, {official}, both before {upstream}. Where it says nothing else, all three clients had
the same outcome.

| call | what is expected | comfygate | {official} |
|---|---|---|---|
"""


def record(server: str, upstream: str, kind: str, outcomes: Mapping[tuple[str, str], str]) -> None:
    """server: its name and version. kind: of the SDK. outcomes: by call and what is expected."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = [{"call": call, "what": what, "outcome": outcome} for (call, what), outcome in outcomes.items()]
    whole = {"server": server, "upstream": upstream, "kind": kind, "rows": rows}
    name = "-".join((server.split(" ")[0], upstream.replace(" ", "-"), kind))
    (FOLDER / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def render() -> str:
    """The section; empty where nothing was run. A real ComfyUI says more than the stand-in, so it is told of where there was one."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))]
    upstreams = {each["upstream"] for each in found}
    if not found:
        return ""
    upstream = next((each for each in sorted(upstreams) if each != "stand-in"), "stand-in")
    is_real = upstream != "stand-in"
    chosen = [each for each in found if (each["upstream"] != "stand-in") == is_real]
    official = next((each["server"] for each in chosen if each["server"].startswith(SERVERS[1])), SERVERS[1])
    names = dict.fromkeys((row["call"], row["what"]) for each in chosen for row in each["rows"])
    lines = [
        f"| {_code(call)} | {what} | {' | '.join(_cell(chosen, server, call, what) for server in SERVERS)} |\n"
        for call, what in names
    ]
    return _HEAD.format(official=official, upstream=f"the {upstream}" if not is_real else upstream) + "".join(lines)


def _code(call: str) -> str:
    """What is written in code, as code; the rest is prose."""
    return re.sub(r"[a-z_.]+\.[a-z_]+(?:\([^)]*\))?|\.[a-z_]+\([^)]*\)", lambda found: f"`{found[0]}`", call)


def _cell(found: list[dict[str, Any]], server: str, call: str, what: str) -> str:
    by_kind = {
        each["kind"]: row["outcome"]
        for each in found
        if each["server"].startswith(server)
        for row in each["rows"]
        if (row["call"], row["what"]) == (call, what)
    }
    outcomes = set(by_kind.values())
    if BY_LUCK in outcomes:
        return BY_LUCK
    if len(outcomes) == 1:
        return str(outcomes.pop())
    return "; ".join(f"{_KINDS[kind]}: {by_kind[kind]}" for kind in _KINDS if kind in by_kind) or "not run"
