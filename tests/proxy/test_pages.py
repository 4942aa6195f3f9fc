"""The gate's own pages: where they lead, what they let in, what they show."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import orjson
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from policy.call import ClientReply
from policy.violation import Violation
from proxy.auth.api_keys import ApiKeyStore, generate_key, hash_key
from proxy.auth.authenticator import Authenticator
from proxy.auth.credentials import SessionCookie
from proxy.auth.csrf_cors import CsrfCors
from proxy.auth.sessions import Sessions
from proxy.config.identity import KeySettings
from proxy.limits.effective_limits import LimitStatus
from proxy.pages import (
    LoginPages,
    MeView,
    local_target,
    login_page,
    login_redirect,
    me_json,
    me_page,
    storage_page,
    wants_html,
)
from tests.proxy.test_targets import TARGETS

PUBLIC = "https://gate.example"
KEY_ID, KEY = generate_key()
FORM = "application/x-www-form-urlencoded"


class Page(HTMLParser):
    """What a page holds, for assertions."""

    def __init__(self, reply: ClientReply) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(reply.body.decode("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def field(self, name: str) -> dict[str, str | None]:
        return next(attributes for attributes in self.all("input") if attributes.get("name") == name)


VIEW = MeView(
    tenant="acme",
    subject=KEY_ID,
    role="user",
    scopes=("files:read", "jobs:read"),
    policy=["You may use 12 nodes.", "<b>No</b> more than 50 steps."],
    functions={"paint": "Paint <it>"},
    limits=(LimitStatus("prompts", "30/minute", 30, 12), LimitStatus("websockets", "8", 8, 8)),
    jobs_pending=2,
    jobs_running=1,
    gpu=LimitStatus("GPU seconds", "3600/day", 3600, 1800.4),
    key_expires_at_s=1_800_000_000,
    session_ends_at_s=1_799_999_999,
)
PAGES = [login_page(), login_page("/view", "Wrong.", 401), me_page(VIEW)]


@pytest.mark.parametrize("reply", PAGES)
def test_pages_are_closed_to_everything_foreign(reply: ClientReply) -> None:
    headers = dict(reply.headers)
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "strict-origin"
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    style = re.search(r"<style>(.*?)</style>", reply.body.decode(), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy["style-src"] == f"'sha256-{digest}'"


@pytest.mark.parametrize("reply", PAGES)
def test_pages_need_no_script_and_no_other_host(reply: ClientReply) -> None:
    page = Page(reply)
    assert page.open == []
    assert not page.all("script")
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style")]
        for name in ("href", "action"):
            # Relative, since an outer proxy may serve the gate below a prefix.
            assert attributes.get(name) in (None, "", "login", "logout", "docs", "../", "run/paint") or str(
                attributes[name]
            ).startswith("data:")
    assert "://" not in reply.body.decode().replace("http://www.w3.org/2000/svg", "")
    assert reply.content_type == "text/html; charset=utf-8"


def test_the_one_script_of_the_clearing_page_is_named_by_its_hash() -> None:
    reply = storage_page("/view?a=<x>", "../")
    script = re.search(r"<script>(.*?)</script>", reply.body.decode(), re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in dict(reply.headers)["Content-Security-Policy"]
    assert Page(reply).all("form") == [{"method": "post", "action": "../gate/storage", "id": "go"}]
    assert Page(reply).field("next")["value"] == "/"
    assert Page(storage_page("/view?a=b", "../")).field("next")["value"] == "/view?a=b"


@pytest.mark.parametrize("reply", PAGES)
def test_pages_can_be_used_by_everybody(reply: ClientReply) -> None:
    page = Page(reply)
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("meta")[1]["content"] == "width=device-width, initial-scale=1"
    assert len(page.all("h1")) == len(page.all("main")) == 1
    labels = {label["for"] for label in page.all("label")}
    for field in page.all("input"):
        assert field.get("type") == "hidden" or "hidden" in field or field["id"] in labels
    for picture in page.all("svg"):
        assert picture["aria-hidden"] == "true"
    text = reply.body.decode()
    assert "prefers-color-scheme: dark" in text
    assert ":focus-visible" in text


def test_an_error_is_announced_and_tied_to_its_field() -> None:
    reply = login_page("/view", "Wrong <key>.", 401)
    page = Page(reply)
    assert reply.status == 401
    assert "Wrong <key>." in page.text
    assert page.field("key")["aria-invalid"] == "true"
    described = page.field("key")["aria-describedby"]
    assert {"class": "error", "id": described, "role": "alert"} in page.all("p")
    assert page.text.strip().startswith("Error")
    assert "aria-invalid" not in Page(login_page()).field("key")


def test_the_login_page_keeps_a_local_target_and_drops_any_other() -> None:
    assert Page(login_page("/view?a=1&b=%22")).field("next")["value"] == "/view?a=1&b=%22"
    assert Page(login_page("//evil.example")).field("next")["value"] == "/"
    assert Page(login_page('/"><script>')).field("next")["value"] == "/"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", "/gate/login"),
        ("/view?a=1&b=2", "/gate/login?next=/view%3Fa%3D1%26b%3D2"),
        ("/view?token=cg_secret", "/gate/login?next=/view"),
        ("//evil.example", "/gate/login"),
    ],
)
def test_a_browser_is_led_to_the_login_and_back(target: str, expected: str) -> None:
    reply = login_redirect(target, (("Set-Cookie", "x"),))
    headers = dict(reply.headers)
    assert (reply.status, headers["Location"], headers["Set-Cookie"]) == (303, expected, "x")
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    back = parse_qs(urlsplit(expected).query).get("next", ["/"])[0]
    assert back == local_target(target)


SESSIONS = Sessions(b"s" * 32, lifetime_s=1000, is_secure=True)
RING = ApiKeyStore([KeySettings.model_validate({"id": KEY_ID, "hash": hash_key(KEY), "tenant": "acme"})])
LOGIN = LoginPages(Authenticator(RING, SESSIONS, None, None), CsrfCors(PUBLIC, ["https://app.example"]), 4096)


def headers_of(**more: str) -> CIMultiDictProxy[str]:
    fields = {"Content-Type": FORM, "Origin": PUBLIC, "Host": "gate.example"}
    fields.update({name.replace("_", "-"): value for name, value in more.items()})
    return CIMultiDictProxy(CIMultiDict(fields))


def form_of(**fields: str) -> bytes:
    return urlencode(fields).encode()


def cookie_in(reply: ClientReply) -> str:
    return dict(reply.headers)["Set-Cookie"].partition(";")[0]


def session_of(pair: str) -> SessionCookie:
    return SessionCookie(pair.partition("=")[2])


async def test_a_good_key_begins_a_session_and_leads_on() -> None:
    login = await LOGIN.login(form_of(key=f" {KEY}\r\n", next="/view?a=1"), headers_of())
    headers = dict(login.reply.headers)
    assert (login.reply.status, headers["Location"]) == (303, "/view?a=1")
    assert login.principal is not None
    assert (login.principal.subject, login.failure) == (KEY_ID, None)
    assert SESSIONS.verify(session_of(cookie_in(login.reply)), RING).is_session
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("target", [target for target, expected in TARGETS if target and expected == "/"])
async def test_the_login_leads_nowhere_else(target: str) -> None:
    body = f"key={KEY}&next={quote(target, safe='')}".encode()
    assert dict((await LOGIN.login(body, headers_of())).reply.headers)["Location"] == "/"


BAD_KEYS = [
    (generate_key()[1], "key-unknown", "not valid here"),
    ("hunter2", "key-malformed", "not an API key"),
    (hash_key(KEY), "key-malformed", "not an API key"),
    ("é", "key-malformed", "not an API key"),
]


@pytest.mark.parametrize(("text", "reason", "sentence"), BAD_KEYS, ids=range(len(BAD_KEYS)))
async def test_a_bad_key_is_told_to_person_and_limiter(text: str, reason: str, sentence: str) -> None:
    login = await LOGIN.login(form_of(key=text, next="/view"), headers_of())
    assert login.failure is not None
    assert (login.reply.status, login.failure.reason, login.principal) == (401, reason, None)
    page = Page(login.reply)
    assert sentence in page.text
    assert page.field("next")["value"] == "/view"
    assert text not in login.reply.body.decode()
    assert "Set-Cookie" not in dict(login.reply.headers)


BAD_FORMS: list[tuple[bytes, dict[str, str], int]] = [
    (b"", {}, 400),
    (b"key=", {}, 400),
    (b"key=%20", {}, 400),
    (b"next=/x", {}, 400),
    (form_of(key=KEY) + b"&" + form_of(key=KEY), {}, 400),
    (b"&".join(b"a%d=1" % n for n in range(9)), {}, 400),
    (b"key=\xff", {}, 400),
    (b"key=%ff", {}, 400),
    (orjson.dumps({"key": KEY}), {"Content_Type": "application/json"}, 400),
    (form_of(key=KEY), {"Content_Type": "text/plain"}, 400),
    (form_of(key=KEY), {"Content_Type": ""}, 400),
    (form_of(key=KEY, next="/" + "a" * 4096), {}, 413),
]


@pytest.mark.parametrize(("form", "fields", "status"), BAD_FORMS, ids=range(len(BAD_FORMS)))
async def test_a_bad_form_costs_nothing(form: bytes, fields: dict[str, str], status: int) -> None:
    login = await LOGIN.login(form, headers_of(**fields))
    assert (login.reply.status, login.principal, login.failure) == (status, None, None)
    assert 'role="alert"' in login.reply.body.decode()


FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "https://app.example"},
    {"Origin": "null"},
    {"Origin": "http://gate.example"},
]


@pytest.mark.parametrize("fields", FOREIGN)
async def test_no_foreign_page_logs_its_visitor_in_or_out(fields: dict[str, str]) -> None:
    with pytest.raises(Violation):
        await LOGIN.login(form_of(key=KEY), headers_of(**fields))
    with pytest.raises(Violation):
        await LOGIN.logout(headers_of(**fields))


async def test_a_session_that_an_attacker_planted_is_not_taken_up() -> None:
    planted = cookie_in((await LOGIN.login(form_of(key=KEY), headers_of())).reply)
    login = await LOGIN.login(form_of(key=KEY), headers_of(Cookie=planted))
    assert cookie_in(login.reply) != planted
    authenticator = Authenticator(RING, SESSIONS, None, None)
    with pytest.raises(Exception, match="session has ended"):
        await authenticator.authenticate(headers_of(Cookie=planted), ())


async def test_logout_ends_the_session_and_what_the_browser_kept() -> None:
    pair = cookie_in((await LOGIN.login(form_of(key=KEY), headers_of())).reply)
    authenticator = Authenticator(RING, SESSIONS, None, None)
    principal = await authenticator.authenticate(headers_of(Cookie=pair), ())
    reply = await LOGIN.logout(headers_of(Cookie=pair))
    headers = dict(reply.headers)
    assert (reply.status, Page(reply).all("form")) == (200, [{"method": "get", "action": "/gate/login", "id": "go"}])
    assert headers["Clear-Site-Data"] == '"cache", "storage"'
    assert [value.partition(" Path")[0] for name, value in reply.headers if name == "Set-Cookie"][
        1
    ] == "__Host-comfygate_storage=; Max-Age=0;"
    assert headers["Cache-Control"] == "no-store"
    with pytest.raises(Exception, match="session has ended"):
        await authenticator.authenticate(headers_of(Cookie=pair), ())
    assert not authenticator.is_alive(principal, 0)


@pytest.mark.parametrize("fields", [{}, {"Cookie": "__Host-comfygate_session=forged"}])
async def test_logout_without_a_session_is_no_error(fields: dict[str, str]) -> None:
    assert (await LOGIN.logout(headers_of(**fields))).status == 200


def test_me_for_programs() -> None:
    reply = me_json(VIEW)
    assert orjson.loads(orjson.dumps(reply.body)) == {
        "tenant": "acme",
        "subject": KEY_ID,
        "note": "",
        "role": "user",
        "scopes": ["files:read", "jobs:read"],
        "policy": ["You may use 12 nodes.", "<b>No</b> more than 50 steps."],
        "functions": ["paint"],
        "limits": [
            {"name": "prompts", "size": "30/minute", "remaining": 12, "total": 30},
            {"name": "websockets", "size": "8", "remaining": 8, "total": 8},
        ],
        "gpu": {"name": "GPU seconds", "size": "3600/day", "remaining": 1800.4, "total": 3600},
        "jobs": {"pending": 2, "running": 1, "unfinished": []},
        "key_expires": "2027-01-15T08:00:00Z",
        "session_ends": "2027-01-15T07:59:59Z",
        "refusals": [],
    }
    assert ("Vary", "Accept") in reply.headers
    assert ("Cache-Control", "no-store") in reply.headers


def test_me_for_people() -> None:
    page = Page(me_page(VIEW))
    for words in (
        "Paint <it> POST /gate/run/paint",
        "acme",
        KEY_ID,
        "You may use 12 nodes.",
        "<b>No</b> more than 50 steps.",
        "30 a minute",
        "8",
        "1,800",
        "2 waiting, 1 running",
        "2027-01-15 08:00 UTC",
        "Sign out",
    ):
        assert words in page.text
    assert page.all("form") == [{"method": "post", "action": "logout"}]
    assert [meter["aria-label"] for meter in page.all("meter")] == [
        "workflows submitted left",
        "live connections left",
        "GPU seconds left",
    ]
    assert [head["scope"] for head in page.all("th")] == ["col"] * 3 + ["row"] * 3


def test_me_with_nothing_to_tell() -> None:
    bare = MeView("a", "<x>", "admin", (), [], (), 0, 0)
    page = Page(me_page(bare))
    assert "<x>" in page.text
    assert "never" in page.text
    assert not page.all("form")
    assert not page.all("table")
    value: dict[str, Any] = me_json(bare).body
    assert (value["gpu"], value["key_expires"], value["session_ends"]) == (None, None, None)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("TEXT/HTML", True),
        ("text/html;q=0.5, application/json;q=0.5", True),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html;q=0.1, application/json", False),
        ("text/html;q=0", False),
        ("text/html;q=x", False),
        ("text/html;level=1;q=0.7", True),
        ("text/htmlx", False),
    ],
)
def test_a_page_is_for_those_who_ask_for_one(accept: str, expected: bool) -> None:
    assert wants_html(accept) is expected
