"""Stops a gate, and starts another one in its place."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.app import Gate
from proxy.config import load_config
from proxy.observability.access_log import RequestLog
from tests.harness import Running


@asynccontextmanager
async def restarted(gate: Running) -> AsyncIterator[None]:
    """Another gate in the place of this one, from the same file."""
    await gate.gate.stop()
    again = Gate(load_config(gate.config_file, {}), RequestLog(io.BytesIO(), "json"))
    await again.start()
    gate.url = again.public.url
    try:
        yield
    finally:
        await again.stop()
