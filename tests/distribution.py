"""Which tests run beside which where they run in several processes (pytest-xdist): a file stays together, and so does what keeps a machine busy."""

from __future__ import annotations

import os
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

HEAVY: Final = {
    "browsers": ("tests/browser/",),
    "installations": ("tests/clients/", "tests/docs/test_commands.py", "tests/setup/"),
}
"""What fills more than one processor by itself: two of a group would wait for each other, and all of them in one process for too long."""
_LONG: Final = (
    "tests/proxy/test_soak.py",
    "tests/v2/",
    "tests/openapi/",
    "tests/commands/",
    "tests/faults/",
    "tests/security/",
    "tests/deploy/",
    "tests/differential/",
    "tests/matrix/",
    "tests/bench/",
    "tests/proxy/copies/",
    "tests/policy/test_upstream_rule.py",
)
"""Where few tests take long, mostly with programs that they start. One that begins last is waited for while the other processors have nothing to do."""


def scope_of(nodeid: str) -> str:
    """What runs in one process, one after the other."""
    file = nodeid.partition("::")[0]
    return next((group for group, places in HEAVY.items() if file.startswith(places)), file)


def rank(scope: str) -> int:
    """What has a lower one begins earlier."""
    if scope in HEAVY:
        return 0
    return 1 if scope.startswith(_LONG) else 2


class FilesTogether(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Gives each process whole files, or a group of heavy ones. What takes long comes first, and then what has most tests."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        self.workqueue.move_to_end(min(self.workqueue, key=rank), last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FilesTogether:
    if os.environ.get("COMFYUI_URL") or os.environ.get("COMFYUI_URLS"):
        raise pytest.UsageError("A real ComfyUI is one for all tests: run them in one process, with -n0.")
    return FilesTogether(config, log)
