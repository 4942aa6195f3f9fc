"""Files of packs' pages, and facts about models: what a call may name."""

from __future__ import annotations

import ntpath
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policy.routes import Rewrite, RouteTable
from policy.rule_context import RuleInput
from policy.rules.shared import check_reference
from policy.violation import Reason, Violation
from tests.policy.custom_rows import row, table_of
from tests.policy.tenants import caller_of, is_refused, request_of

TABLE = table_of(
    row("/pack/files/{file...}", "static"),
    row("/pack/logo.svg", "static", query=["fg", "w"]),
    row("/pack/list/{folder}", "shared-read"),
    row("/pack/view/{name}", "shared-read", suffixes=[".PNG", ".jpg"]),
    row("/pack/img", "shared-read"),
)


def call(*path: str, table: RouteTable = TABLE, **query: str) -> str:
    """The target that ComfyUI is asked for."""
    match = table.match("GET", path)
    assert match is not None
    rule = match.route.tenant
    assert isinstance(rule, Rewrite)
    request = request_of(caller_of(), segments=match.segments, query=query, parameters=match.parameters)
    outgoing = rule.request(request)
    return outgoing.target  # type: ignore[union-attr]


def test_a_file_is_asked_for_as_it_is() -> None:
    assert call("pack", "files", "a", "b c.js") == "/pack/files/a/b%20c.js"
    assert call("api", "pack", "files", "a.js") == "/pack/files/a.js"


def test_what_a_file_has_no_use_for_stays_here() -> None:
    assert call("pack", "files", "a.js", v="1", password="secret") == "/pack/files/a.js"
    assert call("pack", "logo.svg", fg="#abc", token="secret") == "/pack/logo.svg?fg=%23abc"


@pytest.mark.parametrize("value", ['"><script>', "'", "`", "../x", "//host/x"])
def test_a_value_that_a_pack_would_write_into_a_page_is_refused(value: str) -> None:
    assert is_refused(lambda: call("pack", "logo.svg", fg=value), reason=Reason.QUERY_MALFORMED)


@pytest.mark.parametrize("name", ["<script>.js", 'a".js', "a'.js", "`.js"])
def test_a_name_that_a_pack_would_write_into_a_page_is_not_there(name: str) -> None:
    assert is_refused(lambda: call("pack", "files", name), reason=Reason.NOT_FOUND)


def test_what_a_read_asks_for_goes_on() -> None:
    assert call("pack", "list", "loras", page="1", search="tenants, a cat, 50% off; or/and a dog") == (
        "/pack/list/loras?page=1&search=tenants,%20a%20cat,%2050%25%20off%3B%20or/and%20a%20dog"
    )
    assert call("pack", "view", "loras/sub/a b.png") == "/pack/view/loras%2Fsub%2Fa%20b.png"
    assert call("pack", "img", file="sub\\style v1.5.safetensors") == "/pack/img?file=sub%5Cstyle%20v1.5.safetensors"


@pytest.mark.parametrize("name", ["loras/a.safetensors", "loras/a", "loras/a.png.safetensors"])
def test_only_what_ends_as_the_row_says_is_there(name: str) -> None:
    assert is_refused(lambda: call("pack", "view", name), reason=Reason.NOT_FOUND)
    assert call("pack", "view", "loras/A.JPG")


@pytest.mark.parametrize(
    "value",
    [
        "tenants/bob/a.png",
        "input/TENANTS\\bob",
        "./tenants/bob",
        "a,tenants/",
        "./configs",
        "././configs",
        ".\\custom_nodes\\x",
        "configs.",
        "a,./configs",
        "%2e%2fconfigs",
        "custom_nodes",
        "custom_nodes/pack/key.json",
        "Configs",
        "datasets\\x",
        "loras/.git/config",
        ".env",
        "a,.env",
    ],
)
def test_a_hidden_folder_is_not_there(value: str) -> None:
    assert is_refused(lambda: call("pack", "list", value), reason=Reason.NOT_FOUND)
    assert is_refused(lambda: call("pack", "img", type=value), reason=Reason.NOT_FOUND)
    encoded = value.replace(".", "%2e").replace("c", "%63").replace("o", "%256f")
    assert is_refused(lambda: call("pack", "img", type=encoded), reason=Reason.NOT_FOUND)


ELSEWHERE = (
    "..", "../x", "a/../b", "a\\..\\b", "a,../b", "../", "x=..", "a/..", "(..)/a",
    "/etc/x", "\\x", "~/x", "C:\\x", "c:/x", "a,/etc/x", " /x",
    "C:x", "c:.", "C: /x", "loras/C:x", "loras/C:/x", "loras\\c:x", "a,C:x", "loras//etc", "loras\\\\x", "loras/%2fetc", "loras/ /etc", "%43%3ax",
    "//host/x", "http://host/x", "HTTPS:host", "a=ftp://host", "file:x", "data:x", "javascript:x", "\\\\host\\x",
    "%2e%2e/x", "%252e%252e%252fx", "%2fx", "http%3a//x", "a\x00b", "a\nb", "a%00b",
)  # fmt: skip


@pytest.mark.parametrize("value", ELSEWHERE)
def test_a_reference_that_leads_elsewhere_is_refused(value: str) -> None:
    assert is_refused(check_reference, value, "name", reason=Reason.QUERY_MALFORMED)


@pytest.mark.parametrize("value", ["a" * 4097, "%25" * 3 + "252525252525"])
def test_a_reference_without_end_is_refused(value: str) -> None:
    assert is_refused(check_reference, value, "name", reason=Reason.QUERY_MALFORMED)


@pytest.mark.parametrize(
    "value",
    ["", "a..b", "v1...2", "a b", "50%", "100%25", "metadata:x", "16:9", "a/b/c", "…", "foo../bar", "true", "-1"],
)
def test_what_is_only_unusual_passes(value: str) -> None:
    check_reference(value, "name")


@given(st.text(alphabet="./\\%2eEfF5cC:a ,", max_size=12))
@example("a/%2e%2e/b")
@example("2\\%5C")
def test_whatever_passes_stays_below_its_folder(value: str) -> None:
    """Also when it is decoded twice more, and whatever the separator."""
    from urllib.parse import unquote

    try:
        check_reference(value, "name")
    except Violation:
        return
    for text in (value, unquote(value), unquote(unquote(value))):
        parts = text.replace("\\", "/").split("/")
        assert ".." not in parts
        assert not text.startswith(("/", "\\"))
        for rest in (text, *(text.split(each, 1)[-1] for each in "/\\")):
            if re.match(r"[^A-Za-z]:", rest):
                continue  # a drive is a letter, for which this module takes anything
            joined = ntpath.normpath(ntpath.join("D:\\models", rest))
            assert joined.startswith("D:\\models"), "on Windows, also behind a folder that a pack has split off"


def test_a_request_is_told_which_field_is_wrong() -> None:
    request: RuleInput = request_of()
    assert request.call.query == ()
    with pytest.raises(Violation, match="file"):
        call("pack", "img", file="../x")
