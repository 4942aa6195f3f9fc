"""A running gate loads what it uses: a gate without Redis and without token issuers nothing of either."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENTRY = "import sys; import proxy.commands.main, proxy.app; print(*sorted(sys.modules))"


@pytest.fixture(scope="module")
def loaded() -> frozenset[str]:
    return frozenset(
        subprocess.run([sys.executable, "-c", ENTRY], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("name", ["redis", "jwt", "cryptography", "PIL", "rich", "standin"])
def test_what_this_gate_does_not_need_is_not_loaded(loaded: frozenset[str], name: str) -> None:
    assert "proxy.pipeline" in loaded
    assert name not in loaded
