"""Custom nodes of the tests in the stand-in: outputs of every kind, and errors with any text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import orjson

from standin.nodes.runner import Context, Outcome, Runner
from standin.pack import Pack
from standin.specs import NodeSpec, typed
from tests.contract.driver import Graph, node

SHOW = "RecordedShow"
FAIL = "RecordedFail"


class Show(Runner):
    """Writes each file that the shown value names, of so many bytes where it has a `size`, and shows it as it stands.

    The folder of filename_prefix is before each subfolder, as of a saver: it is where the gate lets a tenant write.
    """

    def run(self, context: Context, shown: str, filename_prefix: str) -> Outcome:
        ui, folder = orjson.loads(shown), PurePosixPath(filename_prefix).parent
        for entry in (entry for entries in ui.values() for entry in entries if isinstance(entry, dict)):
            entry["subfolder"] = str(folder / entry["subfolder"])
            place = Path(context.folders.by_type(entry["type"]) or "", entry["subfolder"])
            place.mkdir(parents=True, exist_ok=True)
            data = f"the bytes of {entry['filename']}".encode()
            (place / entry["filename"]).write_bytes(data.ljust(entry.pop("size", 0)))
        return Outcome(ui=ui)


class Fail(Runner):
    def run(self, context: Context, text: str) -> Outcome:
        raise RuntimeError(text)


def make_pack() -> Pack:
    specs = (_spec(SHOW, "shown", "filename_prefix"), _spec(FAIL, "text"))
    return Pack(lambda folders: [], specs, {SHOW: Show, FAIL: Fail}, {})


def showing(ui: Mapping[str, object]) -> Graph:
    """ui: as ComfyUI has it in its history. The output is at node 1."""
    return {"1": node(SHOW, shown=orjson.dumps(ui).decode(), filename_prefix="v2")}


def failing(text: str) -> Graph:
    return {"1": node(FAIL, text=text)}


def _spec(name: str, *fields: str) -> NodeSpec:
    return NodeSpec(
        name=name,
        title=name,
        category="testing",
        module="custom_nodes.recorded_outputs",
        required={field: typed("STRING", multiline=True) for field in fields},
        is_output=True,
    )
