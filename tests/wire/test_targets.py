"""Request targets, byte for byte: the path that is judged is the path that is sent."""

from __future__ import annotations

import pytest

from policy.call import parse_target
from tests.wire.conftest import Wire
from tests.wire.raw import request

# What two programs could read in two ways never passes, with a key or without.
MALFORMED: list[bytes] = [
    b"//queue",
    b"/queue//",
    b"/queue/",
    b"/api//queue",
    b"/./queue",
    b"/queue/.",
    b"/api/../queue",
    b"/api/..",
    b"/..",
    b"/%2e/queue",
    b"/%2e%2e/queue",
    b"/api/%2E%2e/queue",
    b"/queue\\x",
    b"/\\queue",
    b"/%5cqueue",
    b"/queue#",
    b"/features#/queue",
    b"/gate/health#/queue",
    b"/queue%",
    b"/queue%2",
    b"/queue%zz",
    b"/queue%00",
    b"/queue%0a",
    b"/queue%0d%0aX:1",
    b"/queue%7f",
    b"/queue%ff",
    b"/queue%c0%ae",
    b"/queue\xff",
    b"/queue?a=\xff",
    b"/queue\xc3\xa9",
    b"/queue?a=%ff",
    b"/queue?a=%zz",
    b"/queue?a=%00",
    # An address whose host is not the one that Host names.
    b"http://127.0.0.1:8188/queue",
    b"https://evil.example/",
    b"http://gate.example:80/queue",
    b"http://gate.example@evil.example/queue",
    b"http://evil.example@gate.example/queue",
    b"http://gate.example\\@evil.example/queue",
    b"http:///queue",
    b"http:/queue",
    b"ftp://gate.example/queue",
    # One whose path is none.
    b"http://gate.example//queue",
    b"http://gate.example/../queue",
    b"http://gate.example/queue#",
    b"http://gate.example#/queue",
    b"http://gate.example/http://gate.example/queue",
    b"//evil.example/queue",
    b"*",
    b"gate.example:443",
    b"queue",
    b"?queue",
    b"/?" + b"&".join(b"a=%d" % index for index in range(65)),
]
# Decoded once to names that no row has.
UNKNOWN: list[bytes] = [
    b"/%252e%252e/queue",
    b"/queue%252fx",
    b"/queue%2f",
    b"/queue%2fx",
    b"/api%2fqueue",
    b"/queue;x=1",
    b"/;/queue",
    b"/queue%20",
    b"/%20/queue",
    b"/queue%3f",
    b"/queue%23",
    b"/QUEUE",
    b"/queue.js",
    b"/queue.css?x=.js",
    b"/manager/reboot?x=/gate/health",
    b"/features/x",
]
# The same path and query on both sides, however a client spells them.
SAME: list[tuple[bytes, bytes]] = [
    (b"/queue", b"/queue"),
    (b"/api/queue", b"/queue"),
    (b"/%71ueue", b"/queue"),
    (b"/%61pi/queue", b"/queue"),
    (b"/queue?", b"/queue"),
    (b"/queue?a=1&a=2&&b", b"/queue?a=1&a=2&b="),
    (b"/view?filename=a%20b.png&subfolder=x%2fy", b"/view?filename=a%20b.png&subfolder=x/y"),
    (b"/view?filename=%252e%252e%2fx", b"/view?filename=%252e%252e/x"),
    (b"/view?filename=a+b", b"/view?filename=a%20b"),
    (b"/view?filename=a%2bb", b"/view?filename=a%2Bb"),
    (b"/view?filename=a%26type%3dinput", b"/view?filename=a%26type%3Dinput"),
    (b"/view?filename=%C3%A9", b"/view?filename=%C3%A9"),
    (b"/view?filename=a;b", b"/view?filename=a%3Bb"),
    (b"/userdata/a%2fb", b"/userdata/a%2Fb"),
    (b"/userdata/a%252fb", b"/userdata/a%252fb"),
    (b"/userdata/%252e%252e%252fb", b"/userdata/%252e%252e%252fb"),
    # An admin's names are ComfyUI's to refuse: it decodes twice, and gets what was judged.
    (b"/userdata/%2e%2e%2f%2e%2e%2fx", b"/userdata/..%2F..%2Fx"),
    (b"/userdata/a%3fb", b"/userdata/a%3Fb"),
    (b"/userdata/a%23b", b"/userdata/a%23b"),
    (b"/userdata/a;b=c", b"/userdata/a;b=c"),
    (b"/userdata/a:b@c", b"/userdata/a:b@c"),
    (b"/userdata/%5bx%5d", b"/userdata/%5Bx%5D"),
    (b"/userdata/a%25b", b"/userdata/a%25b"),
    (b"/userdata/...", b"/userdata/..."),
    (b"/settings/a%2fb", b"/settings/a%2Fb"),
    (b"/history/%2e%2e%2e", b"/history/..."),
    (b"/jobs/x", b""),
    (b"/api/api/jobs/x", b"/api/jobs/x"),
]


# The absolute form (RFC 9112, 3.2.2), which names the host that Host names: "gate.example".
ABSOLUTE: list[tuple[bytes, bytes]] = [
    (b"http://gate.example/queue", b"/queue"),
    (b"https://gate.example/api/queue?a=1", b"/queue?a=1"),
    (b"HTTP://GATE.example/%71ueue", b"/queue"),
    (b"http://gate.example/userdata/a%2fb", b"/userdata/a%2Fb"),
]


@pytest.mark.parametrize("target", MALFORMED, ids=repr)
async def test_two_readings_are_none(wire: Wire, target: bytes) -> None:
    for key in (wire.key, None):
        answer = await wire.send(request(target, key))
        assert answer.status == 400, answer.raw
        assert answer.all("Server") == ["comfygate"]
        assert b'"type":"' in answer.body
    assert wire.comfy.received == []


@pytest.mark.parametrize("target", UNKNOWN, ids=repr)
async def test_is_decoded_once_and_then_unknown(wire: Wire, target: bytes) -> None:
    assert (await wire.ask(target)).status == 404
    assert (await wire.send(request(target, None))).status == 401
    assert wire.comfy.received == []


@pytest.mark.parametrize(("target", "sent"), SAME, ids=repr)
async def test_what_is_judged_is_what_is_sent(wire: Wire, target: bytes, sent: bytes) -> None:
    answer = await wire.ask(target)
    if not sent:
        assert answer.status == 404
        assert wire.comfy.received == []
        return
    raw_path = wire.only().raw_path
    assert raw_path.encode() == sent
    segments, query = parse_target(target.decode())
    judged = segments[1:] if segments[0] == "api" and segments[1] != "jobs" else segments
    assert parse_target(raw_path) == (judged, query)


@pytest.mark.parametrize(("target", "sent"), ABSOLUTE, ids=repr)
async def test_an_address_of_the_same_host_is_its_path(wire: Wire, target: bytes, sent: bytes) -> None:
    assert (await wire.send(request(target, None))).status == 401
    await wire.ask(target)
    assert wire.only().raw_path.encode() == sent


async def test_an_address_without_a_path_is_the_front_page(wire: Wire) -> None:
    for target in (b"http://gate.example", b"http://gate.example?next=x"):
        answer = await wire.send(request(target, None, "Accept: text/html", "Sec-Fetch-Mode: navigate"))
        assert "/gate/login" in answer.all("Location")[0], answer.raw


@pytest.mark.parametrize(
    "target", [b"/" + b"a" * 20_000, b"/queue?" + b"a" * 17_000, b"/" + b"/".join([b"a"] * 9000)], ids=len
)
async def test_overlong_is_refused(wire: Wire, target: bytes) -> None:
    assert (await wire.ask(target)).status == 400
    assert wire.comfy.received == []


@pytest.mark.parametrize(
    "line", [b"GET /que ue HTTP/1.1", b"GET /queue HTTP/1.1 x", b"GET /queue\tHTTP/1.1", b"GET /queue\x00 HTTP/1.1"]
)  # fmt: skip
async def test_a_request_line_that_is_none(wire: Wire, line: bytes) -> None:
    head = line + b"\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + wire.key.encode() + b"\r\n\r\n"
    assert (await wire.send(head)).status == 400
    assert wire.comfy.received == []


@pytest.mark.parametrize("name", ["X-Forwarded-Uri", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix"])
async def test_no_field_moves_the_path(wire: Wire, name: str) -> None:
    assert (await wire.send(request("/queue", None, f"{name}: /gate/health"))).status == 401
    await wire.ask("/features", f"{name}: /free")
    assert wire.only().raw_path == "/features"


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
async def test_no_field_changes_the_method(wire: Wire, name: str) -> None:
    await wire.ask("/userdata/x.txt", f"{name}: DELETE")
    call = wire.only()
    assert (call.method, name in call.headers) == ("GET", False)


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "PRI", "get", "Get"])
async def test_other_methods_open_nothing(wire: Wire, method: str) -> None:
    for target in ("/queue", "127.0.0.1:8188"):
        answer = await wire.ask(target, method=method)
        assert answer.status in (400, 404, 405), answer.raw
    assert wire.comfy.received == []
