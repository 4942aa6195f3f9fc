"""Of which tests coverage is measured: those that stand beside what they test.

What a whole gate passes through on the way to something else is executed, not tested; and measured, a test takes nearly twice as much of the
processor, which is what all tests wait for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import _lru_cache_wrapper
from typing import Final

import pytest

WHOLE_GATES: Final = (
    "tests/browser/",
    "tests/clients/",
    "tests/differential/",
    "tests/faults/",
    "tests/matrix/",
    "tests/openapi/",
    "tests/security/",
    "tests/setup/",
    "tests/v2/",
    "tests/wire/",
)


_WAS_UNMEASURED: Final = pytest.StashKey[bool]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Coverage is what the examples reach that are written down: random ones reach something else each time."""
    for item in items:
        if item.get_closest_marker("hypothesis") and not item.nodeid.startswith(WHOLE_GATES):
            item.add_marker(pytest.mark.no_cover)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """With what the fixtures do, which the marker `no_cover` leaves in."""
    plugin = item.config.pluginmanager.getplugin("_cov")
    if plugin is None or plugin.cov_controller is None:
        return (yield)
    is_whole = item.nodeid.startswith(WHOLE_GATES)
    if not is_whole and not item.get_closest_marker("no_cover"):
        if item.session.stash.get(_WAS_UNMEASURED, False):
            _forget_answers()
        item.session.stash[_WAS_UNMEASURED] = False
        return (yield)
    item.session.stash[_WAS_UNMEASURED] = True
    if not is_whole:
        return (yield)
    plugin.cov_controller.pause()
    try:
        return (yield)
    finally:
        plugin.cov_controller.resume()


def _forget_answers() -> None:
    """What a function has remembered in an unmeasured test it works out again: else it depends on the order of tests what is reached."""
    for name, module in [*sys.modules.items()]:
        if name.startswith(("policy.", "proxy.")):
            for remembering in vars(module).values():
                if isinstance(remembering, _lru_cache_wrapper):
                    remembering.cache_clear()
