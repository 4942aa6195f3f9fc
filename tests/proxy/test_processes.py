"""Processes that the gate ends."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE

import pytest

from proxy.processes import kill, wait_for_end


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no zombies")
async def test_one_that_is_just_ending_is_killed_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """Its status is asyncio's alone: by the second who asks for it, a part of many would be taken for unknown children."""
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            process = await asyncio.create_subprocess_exec("true", stdout=PIPE)
            assert process.stdout is not None
            await process.stdout.read()
            kill(process)
            await wait_for_end(process)
            assert process.returncode in (0, -9)
            kill(process)
    assert caplog.messages == []
