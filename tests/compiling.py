"""Where the tests run in several processes (pytest-xdist), each module of them is compiled once.

Every process needs all modules, and pytest compiles one whose bytecode is not there yet for longer than it takes to run it. All at once and in
the same order, each process would compile them all. Here each begins with a share of its own and finds what the others have kept.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    worker: dict[str, str | int] | None = getattr(session.config, "workerinput", None)
    if worker is not None:
        number, count = int(str(worker["workerid"]).removeprefix("gw")), int(worker["workercount"])
        for module in share(modules(session.config.args), number, count):
            # What is wrong with a module is told by its collection.
            with suppress(Exception, pytest.skip.Exception):
                importlib.import_module(module)
    return (yield)


def modules(arguments: Iterable[str]) -> list[str]:
    """Of the tests below the folders and in the files that pytest is called with."""
    places = {(ROOT / argument.partition("::")[0]).resolve() for argument in arguments}
    files = {file for place in places for file in (place.rglob("test_*.py") if place.is_dir() else [place])}
    return [
        ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in sorted(files) if file.is_relative_to(ROOT)
    ]


def share(modules: list[str], number: int, count: int) -> list[str]:
    """Of the process with this number: not those one after the other, but every so many. Whoever has finished begins where the others began."""
    return modules[number % count :: count]
