"""`python -m bench NAME...`: runs the named measurements in turn; `python -m bench whole [OPTION...]` that of whole requests. Exit 1 when one of
them broke its promise."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

from bench.whole import main as whole


def names() -> list[str]:
    """The modules beside this one that have a `main`, but for `whole`."""
    # The soak lasts an hour, the storm minutes: `make soak` and `make storm` run them.
    left_out = {"__main__", "probed", "soak", "storm", "whole"}
    found = [
        module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name not in left_out
    ]
    return [name for name in sorted(found) if hasattr(importlib.import_module(f"bench.{name}"), "main")]


def main(wanted: list[str]) -> int:
    if wanted[:1] == ["whole"]:
        whole(wanted[1:])
        return 0
    known = names()
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        print(f"There is no measurement {', '.join(unknown)}. There is: whole, {', '.join(known)}.", file=sys.stderr)
        return 2
    broken = []
    for name in wanted or known:
        print(f"== {name}", flush=True)
        try:
            importlib.import_module(f"bench.{name}").main()
        except SystemExit as end:
            if end.code:
                broken.append(name)
    if broken:
        print(f"Broken promises: {', '.join(broken)}.", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
