"""`comfygate` called in this process, as a person would type it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from typer.testing import CliRunner

from proxy.commands.command_line import app


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def comfygate(*arguments: object) -> Said:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(result.exit_code, result.stdout, result.stderr)


async def aside(*arguments: object) -> Said:
    """The same beside a running server: commands have an event loop of their own."""
    return await asyncio.to_thread(comfygate, *arguments)
