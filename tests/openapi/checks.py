"""Schemathesis against a gate: it makes calls of the document, good ones and bad ones, and holds every answer against what is documented."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.openapi.installed import checker_programs
from tests.openapi.world import document_of
from tests.proxy.v2.assets.sdk import Standing

LIMIT_S = 900.0
# A well-formed call may meet what no schema says: a file that is no asset, a key that was used before, a result of another type.
# A cursor is one that the list has given. `from-hash` is the id of an asset too, so its path takes GET and DELETE besides.
CONFIG = """\
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 406, 409, 422, 429]
[[operations]]
include-path = "/api/v2/assets/from-hash"
checks.allow_header_conformance.enabled = false
[[operations]]
include-name = "GET /api/v2/jobs"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 429]
"""


async def check(world: Standing, folder: Path, *options: str, api: str = "functions") -> str:
    """What it prints. Raises AssertionError when it finds something."""
    (folder / "openapi.json").write_bytes((await document_of(world, api=api)).raw)
    (folder / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
    programs = await asyncio.to_thread(checker_programs)
    command = [str(programs / "st"), "--config-file", "schemathesis.toml", "--no-color", "run", "openapi.json"]
    command += ["--url", world.gate.url, "--header", f"Authorization: Bearer {world.gate.keys['alice']}"]
    # Credentials of its own making are tried too; here they would stand in the log of the test.
    command += ["--generation-database", "none", "--generation-with-security-parameters", "false"]
    command += ["--continue-on-failure", "--request-timeout", "30", "--warnings", "off", *options]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            output, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    said = output.decode()
    assert process.returncode == 0, said
    return said
