"""Of which tests coverage is measured: those that stand beside what they test.

What a whole gate passes through on the way to something else is executed, not tested; and measured, a test takes nearly twice as much of the
processor, which is what all tests wait for.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    if plugin is None or plugin.cov_controller is None or not item.nodeid.startswith(WHOLE_GATES):
        return (yield)
    plugin.cov_controller.pause()
    try:
        return (yield)
    finally:
        plugin.cov_controller.resume()
