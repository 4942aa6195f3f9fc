"""A gate whose results are copied to a real S3 server, and the gate's database as each of the two that it may be."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from standin import StandIn
from tests.harness import Running, running_gate
from tests.proxy.copies.s3 import S3Server, s3_server, storage
from tests.proxy.jobs.conftest import database, make_database

__all__ = ["database", "make_database"]


@pytest.fixture
async def s3(tmp_path: Path) -> AsyncIterator[S3Server]:
    async with s3_server(tmp_path / "s3") as server:
        yield server


@pytest.fixture
async def gate(tmp_path: Path, comfy: StandIn, s3: S3Server) -> AsyncIterator[Running]:
    """One that sees ComfyUI's folders."""
    seen = f'directory = "{tmp_path / "comfyui"}"'
    async with running_gate(tmp_path, comfy.url, more=storage(s3, tmp_path), upstream_more=seen) as running:
        running.comfy = comfy
        yield running
