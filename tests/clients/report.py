"""`python -m tests.clients.report` makes docs/compatibility.md of what the tests have recorded in test-output/compatibility/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.clients.record import FOLDER
from tests.v2 import report as v2

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
_HEAD = """\
# Compatibility

What was run through the gate, as a tenant, and worked. Each row was written by a test (`tests/browser/`, `tests/clients/`) when it had passed;
`python -m tests.clients.report` makes this page of them. With `COMFYUI_URL` set the same tests run against a real ComfyUI.
How each client is set up stands in [clients.md](clients.md).

The stand-in is the gate's own imitation of ComfyUI 0.33. It serves the published web UI, `comfyui-frontend-package`, and truly runs small
workflows.

| client | version | ComfyUI | what was run | result |
|---|---|---|---|---|
"""
_LOADS = """
## Loading the web UI

Cold is the first load in an empty browser profile, warm the second one, with everything that the browser kept. Bytes are what came over the wire,
headers included; sent are the requests that the browser's cache did not answer. A direct user of a ComfyUI that is in use may have less to load
than a new tenant: the web UI shows its templates to whoever comes for the first time.

| ComfyUI | web UI | load | requests, direct | requests, gate | sent, direct | sent, gate | MB, direct | MB, gate |
|---|---|---|---:|---:|---:|---:|---:|---:|
"""
_ROUTES = """
## Routes of other versions

`tests/data/routes-*.txt` hold the routes of ComfyUI 0.3.64 and 0.33.0, dumped from their routers; a test holds that each has a row in the gate's
table. What a newer version adds has no row and is answered with 404 until it gets one; the web UI loads all the same, as it does where a ComfyUI is
older than it.

## The same workflows, past the gate and through it

6,000 generated workflows (seeds 1 to 3; good, half valid and odd ones, of the classes that ComfyUI 0.33.0 describes) were sent to it directly
and through the gate, as a tenant who may run everything: the same status, the same errors at the same nodes, the same order of events, the same
pixels, the same metadata.
`tests/differential/test_differential.py` says what differs on purpose, and runs on the stand-in with every `make test`; with `COMFYUI_URL` and
`DIFFERENTIAL_COUNT=2000` on a real one. ComfyUI's own `tests/execution` of that version, run through the gate with a key put into their calls, passed:
274, with 7 that skip themselves: as they do without the gate.
"""


def render(rows: list[dict[str, Any]]) -> str:
    """The page."""
    ordered = sorted(rows, key=lambda row: (row["client"].lower(), row["what"], row["upstream"]))
    lines = [f"| {row['client']} | {row['version']} | {row['upstream']} | {row['what']} | works |\n" for row in ordered]
    loads = [line for row in ordered if row["loads"] for line in _load_lines(row)]
    return _HEAD + "".join(lines) + v2.render() + _LOADS + "".join(loads) + _ROUTES


def _load_lines(row: dict[str, Any]) -> list[str]:
    by = {(load["way"], load["load"]): load for load in row["loads"]}
    lines = []
    for load in ("cold", "warm"):
        direct, gate = by["direct", load], by["gate", load]
        counts = [str(each[name]) for name in ("requests", "sent") for each in (direct, gate)]
        sizes = [f"{each['received_bytes'] / 1e6:.2f}" for each in (direct, gate)]
        lines.append(f"| {row['upstream']} | {row['version']} | {load} | {' | '.join(counts + sizes)} |\n")
    return lines


def read_rows() -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))]


if __name__ == "__main__":
    PAGE.write_text(render(read_rows()), encoding="utf-8")
