"""GET /extensions: what ComfyUI lists, and the gate's own script once, where it is wanted."""

from __future__ import annotations

from typing import Any

import pytest

from policy.rules.catalog import ACCOUNT_SCRIPT, extensions
from tests.policy.tenants import caller_of, request_of


@pytest.mark.parametrize("listed", [[], ["/extensions/a/b.js"], [ACCOUNT_SCRIPT], {}, None])
@pytest.mark.parametrize("is_wanted", [True, False])
def test_the_gates_own_script_comes_last_and_once(listed: Any, is_wanted: bool) -> None:
    shown = extensions(listed, request_of(caller_of("alice", has_account_menu=is_wanted)))
    others = ["/extensions/a/b.js"] if listed == ["/extensions/a/b.js"] else []
    assert shown == ([*others, ACCOUNT_SCRIPT] if is_wanted else others)
