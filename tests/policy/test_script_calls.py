"""What the scripts of packs call, read out of their text."""

from __future__ import annotations

import pytest

from policy.script_calls import closed_calls, find_calls, is_open
from policy.table import TABLE
from tests.policy.custom_rows import row, table_of

ADDRESS = "/extensions/pack/js/a.js"


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('api.fetchApi("/pack/list")', {"/pack/list"}),
        ("await fetch('/pack/list?x=1#y')", {"/pack/list"}),
        ("api.fetchApi(`/pack/view/${name}/x?y=${z}`)", {"/pack/view/x/x"}),
        ("api.fetchApi(`/pack/view/` + name)", {"/pack/view/x"}),
        ('api.apiURL("/pack/img")', {"/pack/img"}),
        ('api.fetchApi("pack/list")', {"/pack/list"}),
        ('import { a } from "../../../pack/common/a.js";', {"/pack/common/a.js"}),
        ("import\"./b.js\"; import('/pack/c.js')", {"/extensions/pack/js/b.js", "/pack/c.js"}),
        ('import x from "vue"; fetch(url); fetch("https://example.com/a/b")', set()),
        ('fetch("//example.com/a"); fetch(`${base}://x`); fetch("/a b/c"); fetch("/")', set()),
        ('const base = "/known/api"; const other = "/unknown/api";', {"/known/api"}),
        ('import { app } from "../../types/app.d.ts"', set()),
        ("open('known/lib/x.wasm')", {"/known/lib/x.wasm"}),
    ],
)
def test_calls_are_found(text: str, calls: set[str]) -> None:
    assert find_calls(text, ADDRESS, {"known"}) == calls


def test_what_has_a_row_of_any_method_is_open() -> None:
    table = table_of(row("/pack/say", "own-job", "POST", classes=["C"]), row("/pack/off", "never", "DELETE"))
    assert is_open(table, "/pack/say")
    assert is_open(table, "/api/pack/off")
    assert list(closed_calls(table, ["/pack/z", "/pack/say", "/pack/b", "/pack/b"])) == ["/pack/b", "/pack/z"]
    assert is_open(TABLE, "/extensions/pack/a.js")


def test_of_what_a_script_fills_in_one_row_that_begins_so_may_be_meant() -> None:
    table = table_of(row("/pack/list/all", "static"))
    assert is_open(table, "/pack/x/x")
    assert is_open(table, "/pack/list/x")
    assert not is_open(table, "/other/x")
    assert not is_open(table, "/pack/other/x")
    assert not is_open(table, "/x/all")
