"""Programs that send their user and password only when they are asked get in."""

from __future__ import annotations

import asyncio
import urllib.request

from tests.harness import Running
from tests.programs import needs


async def test_curl_chooses_basic_when_it_is_asked(gate: Running) -> None:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--anyauth", "-u", f"key:{gate.keys['alice']}", "-w", " %{http_code}", f"{gate.url}/queue",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert said.endswith(b" 200"), said


@needs("wget")
async def test_wget_answers_when_it_is_asked(gate: Running) -> None:
    process = await asyncio.create_subprocess_exec(
        "wget", "-q", "-O", "-", "--user=key", f"--password={gate.keys['alice']}", f"{gate.url}/queue",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert (process.returncode, b"queue_running" in said) == (0, True)


async def test_urllib_answers_when_it_is_asked(gate: Running) -> None:
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, gate.url, "key", gate.keys["alice"])
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))

    def ask() -> int:
        with opener.open(f"{gate.url}/queue") as answer:
            return int(answer.status)

    assert await asyncio.to_thread(ask) == 200


async def test_the_key_as_user_is_enough(gate: Running) -> None:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-u", f"{gate.keys['alice']}:", "-w", " %{http_code}", f"{gate.url}/queue",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert said.endswith(b" 200"), said


async def test_a_token_that_is_too_long_is_401(gate: Running) -> None:
    headers = {"Authorization": "Bearer " + "a" * 20_000}
    async with gate.session.get(f"{gate.url}/queue", headers=headers) as answer:
        assert answer.status == 401
