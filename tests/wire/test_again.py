"""A head that comes again on its connection is not looked at again: its answer is the same, and whatever has changed meanwhile counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from multidict import CIMultiDict

from proxy.auth import key_file
from proxy.http.head_gaps import USUAL_VALUES
from proxy.http.headers import forwarded_values, to_upstream
from standin import StandIn
from tests.harness import Running, running_gate
from tests.wire.conftest import Wire
from tests.wire.raw import GUARD_S, RawAnswer, connect, parse_answer

ONCE_EACH = {"x-request-id", "date", "ratelimit"}
"""What no two answers have the same."""


class Client:
    """One connection, which sends what it is told, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, data: bytes) -> RawAnswer:
        async with asyncio.timeout(GUARD_S):
            self._writer.write(data)
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = int(parse_answer(head).all("Content-Length")[0])
            body = b"" if data.startswith(b"HEAD ") else await self._reader.readexactly(length)
            return parse_answer(head + body)


@asynccontextmanager
async def connected(gate: Running) -> AsyncIterator[Client]:
    reader, writer = await connect(gate.url)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def same(answer: RawAnswer) -> tuple[object, ...]:
    own_id = answer.all("X-Request-Id")[0].encode()
    fields = [field for field in answer.headers if field[0].lower() not in ONCE_EACH]
    return answer.status, fields, answer.body.replace(own_id, b"")


def asked(key: str, target: str, method: str = "GET", body: bytes = b"", *lines: str) -> bytes:
    more = "".join(f"{line}\r\n" for line in lines)
    framing = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: gate.example\r\nAuthorization: Bearer {key}\r\n{framing}{more}\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/features"),
        ("HEAD", "/features"),
        ("GET", "/embeddings"),
        ("GET", "/queue?a=b"),
        ("GET", "/history/none"),
        ("GET", "/view?filename=none.png"),
        ("GET", "/users"),
        ("GET", "/no/such/route"),
        ("GET", "/system_stats"),
        ("DELETE", "/queue"),
    ],
)
@pytest.mark.parametrize("who", ["alice", "mallory", "admin"])
async def test_each_time_the_answer_is_the_first_ones(gate: Running, who: str, method: str, target: str) -> None:
    data = asked(gate.keys[who], target, method)
    async with connected(gate) as first, connected(gate) as again:
        expected = same(await first.ask(data))
        for _ in range(3):
            assert same(await again.ask(data)) == expected


async def test_a_body_behind_the_same_head_is_read_each_time(gate: Running) -> None:
    async with connected(gate) as client:
        for value, status in ((b'{"a":1}', 200), (b'{"a":2}', 200), (b'{"b":3}', 200), (b"{broken", 400)):
            answer = await client.ask(asked(gate.keys["alice"], "/settings", "POST", value))
            assert answer.status == status
            kept = await client.ask(asked(gate.keys["alice"], "/settings"))
            expected = value if status == 200 else b'{"b":3}'
            assert expected[1:-1] in kept.body.replace(b" ", b""), "what was refused changed nothing"


async def test_a_body_of_another_length_is_read_whole(gate: Running) -> None:
    async with connected(gate) as client:
        for value in (b'{"a":1}', b'{"a":"longer than the one before"}', b'{"a":22}', b'{"b":"%s"}' % (b"x" * 2000)):
            assert (await client.ask(asked(gate.keys["alice"], "/settings", "POST", value))).status == 200
            kept = await client.ask(asked(gate.keys["alice"], "/settings"))
            assert value[1:-1] in kept.body.replace(b": ", b":")


async def test_requests_that_came_together_are_all_answered(gate: Running) -> None:
    data = asked(gate.keys["alice"], "/features")
    reader, writer = await connect(gate.url)
    writer.write(data * 5)
    async with asyncio.timeout(GUARD_S):
        for _ in range(5):
            head = parse_answer(await reader.readuntil(b"\r\n\r\n"))
            assert head.status == 200
            await reader.readexactly(int(head.all("Content-Length")[0]))
    writer.close()


async def test_one_byte_more_is_another_head(gate: Running) -> None:
    alice, mallory = gate.keys["alice"], gate.keys["mallory"]
    changed = alice[:-1] + ("A" if alice[-1] != "A" else "B")
    async with connected(gate) as client:
        for _ in range(2):
            assert b'"alice"' in (await client.ask(asked(alice, "/gate/me"))).body
            assert (await client.ask(asked(changed, "/gate/me"))).status == 401
            assert b'"mallory"' in (await client.ask(asked(mallory, "/gate/me"))).body
            assert (await client.ask(asked(alice, "/free", "POST", b"{}"))).status == 403
            assert (await client.ask(asked(alice, f"/features?x={alice}"))).status == 400


async def test_a_revoked_key_is_refused_on_the_connection_that_it_has(gate: Running) -> None:
    data = asked(gate.keys["alice"], "/queue")
    async with connected(gate) as client:
        for _ in range(3):
            assert (await client.ask(data)).status == 200
        key_file.revoke_key(gate.config_file, gate.keys["alice"].split("_")[1])
        assert await gate.gate.reload(gate.config_file)
        assert (await client.ask(data)).status == 401


async def test_what_a_reload_refuses_is_refused(gate: Running) -> None:
    """The caller is who it was, and its key as good: the row's rule is another one for it."""
    data = asked(gate.keys["admin"], "/free", "POST", b"{}")
    async with connected(gate) as client:
        for _ in range(3):
            assert (await client.ask(data)).status == 200
        text = gate.config_file.read_text(encoding="utf-8")
        assert text.count('role = "admin"') == 1
        gate.config_file.write_text(text.replace('role = "admin"', 'role = "user"'), encoding="utf-8")
        assert await gate.gate.reload(gate.config_file)
        assert (await client.ask(data)).status == 403


async def test_a_rate_is_spent_each_time(tmp_path: Path, comfy: StandIn) -> None:
    tenants = '[tenants.alice]\nlimits = "tight"\n[tenants.mallory]\n[limits.tight]\nrequests = "5/hour"\n'
    async with running_gate(tmp_path, comfy.url, tenants=tenants) as gate, connected(gate) as client:
        data = asked(gate.keys["alice"], "/features")
        answers = [await client.ask(data) for _ in range(7)]
        assert [answer.status for answer in answers] == [200] * 5 + [429] * 2
        assert answers[-1].all("Retry-After")
        assert (await client.ask(asked(gate.keys["mallory"], "/features"))).status == 200


async def test_each_request_is_one_line_of_the_log_and_has_a_name_of_its_own(wire: Wire) -> None:
    data = asked(wire.key, "/features")
    named = asked(wire.key, "/features", "GET", b"", "X-Request-Id: mine")
    async with connected(wire.gate) as client:
        ids = [(await client.ask(data)).all("X-Request-Id")[0] for _ in range(4)]
        assert len(set(ids)) == 4
        assert [(await client.ask(named)).all("X-Request-Id") for _ in range(2)] == [["mine"]] * 2


async def test_each_key_counts_that_a_head_like_the_last_one_has(gate: Running) -> None:
    """The heads differ in `Idempotency-Key` alone, or in the length besides: each is used once, and none is taken for the one before it."""
    graph = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}}
    graph["2"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}
    body = json.dumps({"workflow": graph}).encode()
    keys = ["a" * 36, "b" * 36, "a" * 36, "c" * 37, "b" * 36, "two words", "d" * 36, '"%s"' % ("d" * 36), "e" * 256, ""]
    statuses = [201, 201, 422, 201, 422, 201, 201, 422, 400, 400]
    async with connected(gate) as client:
        for number, (key, status) in enumerate(zip(keys, statuses, strict=True)):
            sent = body + b" " * (number % 3)
            answer = await client.ask(
                asked(gate.keys["alice"], "/api/v2/jobs", "POST", sent, f"Idempotency-Key: {key}")
            )
            assert answer.status == status, (key, answer.body)


def test_what_may_differ_in_a_head_like_the_last_one_goes_no_further() -> None:
    """Nothing is worked out of it: whatever goes on to ComfyUI is searched for credentials once for all heads that are alike."""
    sent = CIMultiDict((name, "x") for name in USUAL_VALUES)
    assert not to_upstream(sent, with_body=False)
    assert not forwarded_values(sent)
    assert not {name.lower() for name in USUAL_VALUES} & {
        "authorization",
        "cookie",
        "x-api-key",
        "cf-access-jwt-assertion",
    }
