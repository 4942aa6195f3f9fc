"""Where a browser may be led after the login."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.request_record import root_of
from proxy.pages import local_target

TARGETS: list[tuple[str | None, str]] = [
    (None, "/"),
    ("", "/"),
    ("/", "/"),
    ("/view", "/view"),
    ("/view?filename=a%20b.png&type=output", "/view?filename=a%20b.png&type=output"),
    ("/userdata/workflows%20new/a.json", "/userdata/workflows%20new/a.json"),
    ("/?next=//evil.example", "/?next=//evil.example"),
    ("/a;b=c,d@e:f!$&'()*+", "/a;b=c,d@e:f!$&'()*+"),
    ("/view?token=cg_secret", "/view"),
    ("/view?a=1&token=cg_secret&b=2", "/view?a=1&b=2"),
    ("/view?%74oken=cg_secret&x", "/view?x"),
    ("//evil.example", "/"),
    ("///evil.example", "/"),
    ("/\\evil.example", "/"),
    ("\\\\evil.example", "/"),
    ("\\/evil.example", "/"),
    ("/%5cevil.example", "/"),
    ("/%5Cevil.example", "/"),
    ("/%2fevil.example", "/"),
    ("/%2F%2Fevil.example", "/"),
    ("/a//b", "/"),
    ("/./evil", "/"),
    ("/.//evil.example", "/"),
    ("/a/..//evil.example", "/"),
    ("/%2e%2e//evil.example", "/"),
    ("/%2e/x", "/"),
    ("https://evil.example", "/"),
    ("https:evil.example", "/"),
    ("http:///evil.example", "/"),
    ("javascript:alert(1)", "/"),
    ("/javascript:alert(1)", "/javascript:alert(1)"),
    ("JaVaScRiPt:alert(1)", "/"),
    ("data:text/html,x", "/"),
    ("evil.example", "/"),
    ("@evil.example", "/"),
    (".evil.example", "/"),
    ("?x=1", "/"),
    ("#x", "/"),
    ("/x#y", "/"),
    (" /x", "/"),
    ("/x ", "/"),
    ("/x y", "/"),
    ("/\t/evil.example", "/"),
    ("/\n/evil.example", "/"),
    ("/\r\nSet-Cookie: a=b", "/"),
    ("/%0d%0aSet-Cookie:%20a=b", "/"),
    ("/%00", "/"),
    ("/%7f", "/"),
    ("/x\x00", "/"),
    ("\t//evil.example", "/"),
    ("/\u2044evil.example", "/"),
    ("/\uff0fevil.example", "/"),
    ("/é", "/"),
    ('/"onload=x', "/"),
    ("/<script>", "/"),
    ("/%", "/"),
    ("/%zz", "/"),
    ("/x?y=%g1", "/"),
    ("/" + "a" * 2048, "/"),
    ("/gate/login", "/"),
    ("/gate/login?next=/x", "/"),
    ("/gate/login/", "/"),
    ("/gate/logout", "/"),
    ("/gate/me", "/gate/me"),
]


@pytest.mark.parametrize(("text", "expected"), TARGETS)
def test_leads_to_a_page_of_the_gate_only(text: str | None, expected: str) -> None:
    assert local_target(text) == expected


@given(st.text(alphabet="/\\.%25cCfFeE:@?#&=ht p\t\n;aé", max_size=24) | st.text(max_size=24))
def test_no_text_leads_elsewhere(text: str) -> None:
    target = local_target(text)
    there = urlsplit(urljoin("https://gate.example/gate/login", target))
    assert (there.scheme, there.netloc) == ("https", "gate.example")
    assert target.startswith("/")
    assert target[1:2] not in ("/", "\\")
    assert target.isprintable()
    assert target.isascii()
    assert local_target(target) == target


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/", "./"),
        ("/?a=/b/c", "./"),
        ("/queue", "./"),
        ("/gate/me", "../"),
        ("/a/b/c?x=/", "../../"),
        ("/a/", "../"),
        ("*", "./"),
        ("/" * 5000, "../" * 64),
    ],
)
def test_what_leads_back_to_the_front_page(path: str, root: str) -> None:
    assert root_of(path) == root
    assert root_of(path, "/comfy") == "/comfy/"
