"""Node classes that write down when they run, into a file that neither the gate nor ComfyUI reads: what really ran, whoever was killed meanwhile."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from standin.folders import Folders
from standin.nodes.runner import Context, Interrupted, Outcome, Runner
from standin.pack import Pack
from standin.specs import Input, NodeSpec, choice, typed

LONGEST_NAP_S = 0.01
CUSTOM = "RecordedWork"
"""As a pack's class: only ComfyUI knows whether it takes its inputs."""
CORE = "RecordedCoreWork"
"""As one of ComfyUI's own classes: the gate may judge it by the catalogue alone."""

MODEL = "RecordedModelWork"
"""As one of ComfyUI's own that runs a model, of which one at a time is loaded."""
MODELS = ("a.safetensors", "b.safetensors")


@dataclass(frozen=True)
class Line:
    """event: begin, end, load (a model, before `begin`), stopped (interrupted) or raised. life: the process id of the ComfyUI. at_s: of the machine's
    monotonic clock."""

    event: str
    prompt_id: str
    name: str
    life: int
    at_s: float


class Record:
    """The file. Lines are appended whole, each in one write, and are on disk before the job goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, prompt_id: str, name: str) -> None:
        line = orjson.dumps(Line(event, prompt_id, name, os.getpid(), time.monotonic())) + b"\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)

    def lines(self) -> list[Line]:
        if not self.path.exists():
            return []
        return [Line(**orjson.loads(line)) for line in self.path.read_bytes().splitlines()]

    def begun(self) -> int:
        """How many lines there are of jobs that began."""
        return self.path.read_bytes().count(b'"event":"begin"') if self.path.exists() else 0

    @property
    def hold(self) -> Path:
        """While there is a file of this name, jobs that are told to wait do not end."""
        return self.path.with_suffix(".hold")


class OutOfMemoryError(RuntimeError):
    """The end of its name is what torch's has."""


def recording_pack(record: Record) -> Pack:
    class Work(Runner):
        has_fingerprint = True

        @classmethod
        def fingerprint(cls, folders: Folders, *args: Any, **values: Any) -> float:
            return float("nan")  # never from the cache

        def run(
            self,
            context: Context,
            name: str,
            seconds: float,
            waits: bool = False,
            memory_errors: int = 0,
            other_errors: int = 0,
        ) -> Outcome:
            record.write("begin", context.prompt_id, name)
            try:
                _take_time(context, seconds, record.hold if waits else None)
            except Interrupted:
                record.write("stopped", context.prompt_id, name)
                raise
            runs = sum(line.event == "begin" and line.name == name for line in record.lines())
            if max(memory_errors, other_errors) >= runs:
                record.write("raised", context.prompt_id, name)
                raise OutOfMemoryError("Allocation on device") if memory_errors else RuntimeError("It broke")
            record.write("end", context.prompt_id, name)
            return Outcome(ui={"text": [name]})

    class ModelWork(Work):
        loaded = ""

        def run(self, context: Context, model_name: str, load_seconds: float, **values: Any) -> Outcome:  # type: ignore[override]
            if ModelWork.loaded != model_name:
                record.write("load", context.prompt_id, model_name)
                _take_time(context, load_seconds, None)
                ModelWork.loaded = model_name
            return super().run(context, **values)

    core = _spec(CORE, "nodes")
    by_model = {"model_name": choice(list(MODELS)), "load_seconds": _number(10.0, "FLOAT"), **core.required}
    specs = (
        _spec(CUSTOM, "custom_nodes.recorded_work"),
        core,
        replace(core, name=MODEL, title=MODEL, required=by_model),
    )
    return Pack(lambda folders: [], specs, {CUSTOM: Work, CORE: Work, MODEL: ModelWork}, {})


def work(name: str, seconds: float, class_type: str = CUSTOM, **inputs: object) -> dict[str, Any]:
    """A workflow of one node. inputs: waits (until the record's `hold` is gone); memory_errors and other_errors: in how many of its
    first runs it fails so."""
    return {"1": {"class_type": class_type, "inputs": {"name": name, "seconds": seconds, **inputs}}}


def _take_time(context: Context, seconds: float, hold: Path | None) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 or (hold is not None and hold.exists()):
        context.check_interrupt()
        time.sleep(min(LONGEST_NAP_S, max(0.0, left)) or LONGEST_NAP_S)


def _spec(name: str, module: str) -> NodeSpec:
    required = {"name": typed("STRING", multiline=False), "seconds": _number(1.0, "FLOAT")}
    optional = {
        "waits": typed("BOOLEAN", default=False),
        "memory_errors": _number(0, "INT"),
        "other_errors": _number(0, "INT"),
    }
    return NodeSpec(
        name=name,
        title=name,
        category="testing",
        module=module,
        required=required,
        optional=optional,
        is_output=True,
    )


def _number(default: float, kind: str) -> Input:
    return typed(kind, default=default, min=0, max=3600)
