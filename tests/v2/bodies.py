"""Every body that a v2 server gave to any SDK in a test, held against what the SDKs themselves say of its shape."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.v2.conversation import Exchange, frames_of
from tests.v2.installed import PROGRAMS, node, sdk_python
from tests.v2.sdk import node_program_in

_PREFIX = "/api/v2/"
_BARE = (204, 416)
"""Statuses for which the contract has no body."""
_PYTHON = PROGRAMS / "check_bodies.py"
_NODE = "check_bodies.mjs"
_STREAM = "text/event-stream"
_JSON = "application/json"


@dataclass(frozen=True)
class Body:
    """kind: as in programs/check_bodies.py; empty: of no kind that is known. where: for the message."""

    kind: str
    text: str
    where: str


def bodies_of(exchanges: Iterable[Exchange]) -> list[Body]:
    return [body for exchange in exchanges if exchange.is_whole or _is_stream(exchange) for body in _bodies(exchange)]


def _is_stream(exchange: Exchange) -> bool:
    return exchange.headers.get("content-type", "").startswith(_STREAM)


def _bodies(exchange: Exchange) -> Iterator[Body]:
    where = f"{exchange.method} {exchange.target} {exchange.status}"
    is_bare = exchange.method == "HEAD" or exchange.status in _BARE
    if is_bare or not exchange.path.startswith(_prefixed(exchange)):
        return
    if exchange.status >= 400:
        yield Body("error", exchange.body.decode(), where)
    elif _is_stream(exchange):
        for frame in frames_of(exchange.body):
            yield Body(frame.event, frame.data, f"{where} {frame.event}")
    elif exchange.status < 300 and not exchange.path.endswith("/content"):
        yield Body(kind_of(exchange), exchange.body.decode(), where)


def _prefixed(exchange: Exchange) -> str:
    """With whatever stands before the API in a path that has a prefix."""
    before, _, _ = exchange.path.partition(_PREFIX)
    return before + _PREFIX


def kind_of(exchange: Exchange) -> str:
    """Of a good answer; empty where no operation of the API has such an answer."""
    match exchange.method, exchange.path.rpartition(_PREFIX)[2].split("/"):
        case ("GET", ["jobs"]):
            return "page"
        case ("POST", ["jobs"]) | ("GET", ["jobs", _]) | ("POST", ["jobs", _, "cancel"]):
            return "job"
        case ("GET", ["jobs", _, "workflow"]):
            return "workflow"
        case ("POST", ["assets"] | ["assets", "from-hash"]) | ("GET", ["assets", _]):
            return "asset"
    return ""


class Judges:
    """Both SDKs' own checks, as programs that live as long as the tests. folder: where the one of Node is put."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs: list[subprocess.Popen[bytes]] = []

    def mistakes_in(self, bodies: list[Body]) -> list[str]:
        """What the pydantic models of comfy-sdk and the zod schemas of @comfyorg/sdk do not take, and what only shows in the text."""
        unknown = [f"{body.where}: no operation answers so: {body.text[:300]}" for body in bodies if not body.kind]
        known = [body for body in bodies if body.kind]
        said = [(body, _ask(program, body)) for program in self._running() for body in known]
        wrong = [f"{body.where}: {problem}\n{body.text[:2000]}" for body, problem in said if problem is not None]
        return unknown + wrong + [problem for body in known for problem in _in_text(body)]

    def stop(self) -> None:
        for program in self._programs:
            program.communicate()  # closes its standard input, and it ends

    def _running(self) -> list[subprocess.Popen[bytes]]:
        if not self._programs:
            commands = ([sdk_python(), str(_PYTHON)], [node(), str(node_program_in(self._folder, _NODE))])
            pipe = subprocess.PIPE
            self._programs = [subprocess.Popen(command, stdin=pipe, stdout=pipe) for command in commands]
        return self._programs


def _ask(program: subprocess.Popen[bytes], body: Body) -> str | None:
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(json.dumps({"kind": body.kind, "text": body.text}).encode() + b"\n")
    program.stdin.flush()
    line = program.stdout.readline()
    assert line, f"the program ended with {program.wait()}"
    found: str | None = json.loads(line)
    return found


def _in_text(body: Body) -> Iterator[str]:
    """What neither SDK's models see."""
    if body.kind in ("status", "progress", "preview", "output", "log") and not body.text.isascii():
        yield f"{body.where}: a line of an event stream that is not ASCII: {body.text[:300]}"
    if body.kind == "progress" and json.loads(body.text)["value"] is None:
        yield f"{body.where}: a progress without a value"


def header_mistakes(exchanges: Iterable[Exchange]) -> list[str]:
    """What the contract asks of the headers of every answer."""
    return [
        f"{exchange}: {wrong}" for exchange in exchanges if _PREFIX in exchange.path for wrong in _headers(exchange)
    ]


def _headers(exchange: Exchange) -> Iterator[str]:
    if not exchange.headers.get("x-comfy-request-id"):
        yield "no X-Comfy-Request-Id"
    if exchange.status == 429 and not exchange.headers.get("retry-after", "").isdecimal():
        yield "no whole seconds in Retry-After"
    kind = exchange.headers.get("content-type", "").partition(";")[0]
    if exchange.status >= 400 and not (exchange.method == "HEAD" or exchange.status in _BARE) and kind != _JSON:
        yield f"a refusal of type {kind}"
    if _is_stream(exchange) and exchange.headers.get("cache-control") != "no-store":
        yield f"an event stream with Cache-Control {exchange.headers.get('cache-control')}"
    if _is_stream(exchange) and "content-encoding" in exchange.headers:
        yield "an event stream that is compressed"
