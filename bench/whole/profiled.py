"""A gate that is profiled between two SIGUSR1: `python -m bench.whole.profiled FILE serve ...` writes what took the time to FILE."""

from __future__ import annotations

import cProfile
import io
import pstats
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final

LINES: Final = 60


def main(file: Path) -> None:
    profile = cProfile.Profile()
    is_on = False

    def turn(number: int, frame: FrameType | None) -> None:
        nonlocal is_on
        is_on = not is_on
        if is_on:
            profile.enable()
            return
        profile.disable()
        text = io.StringIO()
        stats = pstats.Stats(profile, stream=text)
        stats.sort_stats("tottime").print_stats(LINES)
        stats.sort_stats("cumulative").print_stats(LINES)
        file.write_text(text.getvalue(), encoding="utf-8")

    signal.signal(signal.SIGUSR1, turn)
    from proxy.commands.main import main as run

    run()


if __name__ == "__main__":
    target = Path(sys.argv.pop(1))
    main(target)
