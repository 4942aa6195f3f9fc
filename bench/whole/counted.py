"""A gate whose work is counted between two SIGUSR1, in steps and not in time: `python -m bench.whole.counted FILE serve ...`.

FILE gets `{"steps": n, "loads": n, "dumps": n}`: instructions of the gate's own Python, and how often JSON was read and written.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parents[2]
_OWN: Final = tuple(str(_ROOT / name) for name in ("proxy", "policy"))


class Counter:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._is_on = False
        self._counts: dict[str, int] = {}

    def turn(self, number: int, frame: FrameType | None) -> None:
        self._is_on = not self._is_on
        if self._is_on:
            self._counts = {"steps": 0, "loads": 0, "dumps": 0}
            sys.settrace(self._enter)
            sys.setprofile(self._called)
            return
        sys.settrace(None)
        sys.setprofile(None)
        written = self._file.with_suffix(".new")
        written.write_text(json.dumps(self._counts), encoding="utf-8")
        os.replace(written, self._file)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_OWN):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        self._counts["steps"] += event == "opcode"
        return self._step

    def _called(self, frame: FrameType, event: str, argument: Any) -> None:
        name = argument.__name__ if event == "c_call" else frame.f_code.co_name if event == "call" else ""
        module = argument.__module__ if event == "c_call" else frame.f_globals.get("__name__")
        if name in ("loads", "dumps") and module in ("orjson", "json"):
            self._counts[name] += 1


def main(file: Path) -> None:
    signal.signal(signal.SIGUSR1, Counter(file).turn)
    from proxy.commands.main import main as run

    run()


if __name__ == "__main__":
    main(Path(sys.argv.pop(1)))
