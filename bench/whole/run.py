"""`python -m bench whole [--only ROW]... [--rounds N] [--profile] [--object-info FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import compileall
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.whole import documents, durable, functions, jobs, rows, sockets, web
from bench.whole.figures import Figure, table
from bench.whole.programs import load_average
from bench.whole.rows import Profiled, Row, Run

_ROOT: Final = Path(__file__).resolve().parents[2]
ROWS: Final[dict[str, Row]] = {
    "small-get": rows.small_get,
    "latency": rows.latency,
    "prompt": jobs.prompt,
    "job": jobs.job,
    "durable": durable.durable,
    "functions": functions.functions,
    "large": rows.large,
    "frames": sockets.frames,
    "idle": sockets.idle,
    "web-ui": web.web_ui,
    "object-info": rows.object_info,
    "history": rows.history,
    "start": rows.start,
}


def main(arguments: list[str]) -> None:
    """Prints one table. A missed budget is told in it and is no failure: the figures of a laptop are not those of a server."""
    parser = argparse.ArgumentParser(prog="python -m bench whole", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(ROWS), help="one of the rows; all without it")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each subject takes")
    parser.add_argument("--profile", action="store_true", help="instead of figures: what takes the gate's time")
    parser.add_argument(
        "--object-info", type=Path, help="a real ComfyUI's answer to GET /object_info, in place of a made one"
    )
    asked = parser.parse_args(arguments)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (most, most)
    )  # thousands of sockets, in the processes that are started too
    for package in ("policy", "proxy"):  # as they are where the gate was installed
        compileall.compile_dir(_ROOT / package, quiet=1)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        described = asked.object_info
        if described is None:
            described = Path(folder) / "object_info.json"
            described.write_bytes(documents.object_info())
        profile = Path(folder) / "profile.txt" if asked.profile else None
        figures = asyncio.run(
            _measure(asked.only or list(ROWS), Run(described, asked.rounds, profile, asked.object_info is not None))
        )
    if figures:
        print(table(figures))
        print(
            f"\n{asked.rounds} rounds in turns, Python {sys.version.split()[0]}, load {load_average():.1f}, "
            f"{time.monotonic() - began_s:.0f} s. Ratios are medians of the rounds'; a row that compares with nothing has its own figure in its budget."
        )


async def _measure(names: list[str], run: Run) -> list[Figure]:
    figures: list[Figure] = []
    for name in names:
        print(f"... {name}", file=sys.stderr, flush=True)
        try:
            figures += await ROWS[name](run)
        except Profiled as profiled:
            print(f"== {name}\n{profiled}")
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
