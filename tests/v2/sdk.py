"""Comfy-Org's SDKs as programs that tests start and tell, call by call, what to do. Their programs are in programs/."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.v2.installed import PROGRAMS, node, sdk_modules, sdk_python

GUARD_S = 240.0
"""Ends a test that would hang; nothing is measured with it."""
LONGEST_LINE_BYTES = 64 * 1024 * 1024
KINDS = ("sync", "async", "node")
WRITTEN_APART = ("sync", "node")
"""AsyncComfy makes the same requests as Comfy, and reads answers alike; what is alike is not run twice."""
WITH_LABELS = ("sync", "async")
"""Those that know labels and the list of jobs."""
_NO_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


class SdkError(Exception):
    """What the SDK raised. bases: the names of its class and of those that it descends from."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        super().__init__(f"{told['class']}: {told['message']} ({told['code']}, {told['http_status']})")
        self.bases: list[str] = told["bases"]
        self.message: str = told["message"]
        self.code: str | None = told["code"]
        self.status: int | None = told["http_status"]
        self.details: dict[str, Any] | None = told["details"]
        self.retry_after: float | None = told["retry_after"]
        self.request_id: str | None = told["request_id"]


@dataclass
class Call:
    """One call that is under way. events: what an iterator has given so far, oldest first."""

    events: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] | None = None
    _grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def hear(self, message: dict[str, Any]) -> None:
        async with self._grown:
            if "event" in message:
                self.events.append(message["event"])
            else:
                self.end = message
            self._grown.notify_all()

    async def value(self) -> Any:
        """Waits for the end. Raises SdkError when the SDK raised."""
        outcome = await self.outcome()
        if isinstance(outcome, SdkError):
            raise outcome
        return outcome

    async def outcome(self) -> Any:
        """Waits for the end: what the call gave, or the SdkError."""
        async with self._grown:
            await self._grown.wait_for(lambda: self.end is not None)
        assert self.end is not None
        return SdkError(self.end["error"]) if "error" in self.end else self.end["value"]

    async def until(self, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event like that; waits for it."""
        async with self._grown:
            await self._grown.wait_for(lambda: self.end is not None or any(map(is_wanted, self.events)))
        found = next(filter(is_wanted, self.events), None)
        assert found is not None, f"ended without it: {self.end}\n{self.events}"
        return found

    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.events]

    def statuses(self) -> list[str]:
        return [event["status"] for event in self.events if event["kind"] == "statusChange"]


class Sdk:
    """A running program. kind: one of KINDS."""

    def __init__(self, kind: str, process: asyncio.subprocess.Process) -> None:
        self.kind = kind
        self._process = process
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)

    @property
    def has_labels(self) -> bool:
        return self.kind in WITH_LABELS

    def begin(self, do: str, **given: Any) -> Call:
        number = next(self._numbers)
        call = self._calls[number] = Call()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"n": number, "do": do, **given}).encode() + b"\n")
        return call

    async def call(self, do: str, **given: Any) -> Any:
        return await self.begin(do, **given).value()

    async def refused(self, do: str, **given: Any) -> SdkError:
        """The error of a call that must fail."""
        outcome = await self.begin(do, **given).outcome()
        assert isinstance(outcome, SdkError), f"{do} gave {outcome}"
        return outcome

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line)
            await self._calls[message["n"]].hear(message)
        gone = {"class": "ProgramEnded", "bases": [], "message": "the program has ended"}
        nothing = dict.fromkeys(("code", "http_status", "details", "retry_after", "request_id"))
        for call in self._calls.values():
            if call.end is None:
                await call.hear({"error": gone | nothing})


def variables(url: str, key: str | None) -> dict[str, str]:
    """An environment that says where to go, as SDKs' users have it."""
    own = {name: value for name, value in os.environ.items() if name not in _NO_VARIABLES}
    return own | {"COMFY_BASE_URL": url, "PYTHONUNBUFFERED": "1", **({} if key is None else {"COMFY_API_KEY": key})}


@asynccontextmanager
async def running_sdk(
    kind: str,
    folder: Path,
    url: str,
    key: str | None,
    environment: Mapping[str, str] | None = None,
    guard_s: float = GUARD_S,
) -> AsyncIterator[Sdk]:
    """The program of that kind, told where to go as its users tell it. folder: where it runs. environment: what it is told besides."""
    command = await asyncio.to_thread(_command, kind, folder)
    told = variables(url, key)
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=told | dict(environment or {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE_BYTES,
    )
    sdk = Sdk(kind, process)
    listening = asyncio.ensure_future(sdk.listen())
    try:
        async with asyncio.timeout(guard_s):
            yield sdk
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


def _command(kind: str, folder: Path) -> list[str]:
    if kind != "node":
        return [sdk_python(), str(PROGRAMS / f"sdk_{kind}.py")]
    program = node_program_in(folder, "sdk_node.mjs")
    return [node(), str(program)]


def node_program_in(folder: Path, name: str) -> Path:
    """A copy of the program with the SDK beside it."""
    place = folder / "node"
    add_modules(place)
    shutil.copy(PROGRAMS / name, place)
    return place / name


def add_modules(folder: Path) -> None:
    """Node looks for packages from where a program is: the SDK's are beside it."""
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / "node_modules").symlink_to(sdk_modules())
