"""Which tests run beside which where they run in several processes (pytest-xdist): a file stays together, and so does what keeps a machine busy."""

from __future__ import annotations

import os
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

HEAVY: Final = "heavy"
_HEAVY: Final = ("tests/browser/", "tests/clients/", "tests/docs/test_commands.py", "tests/setup/")
"""Browsers, other people's clients, installations: each fills more than one processor by itself, so that two of them would wait for each other."""


def scope_of(nodeid: str) -> str:
    """What runs in one process, one after the other."""
    file = nodeid.partition("::")[0]
    return HEAVY if file.startswith(_HEAVY) else file


class FilesTogether(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Gives each process whole files; the heavy ones are one, and come first, since they take longest."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        if HEAVY in self.workqueue:
            self.workqueue.move_to_end(HEAVY, last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FilesTogether:
    if os.environ.get("COMFYUI_URL"):
        raise pytest.UsageError("The ComfyUI at COMFYUI_URL is one for all tests: run them in one process, with -n0.")
    return FilesTogether(config, log)
