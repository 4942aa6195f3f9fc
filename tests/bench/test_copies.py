"""The short form of `python -m bench copies`."""

from __future__ import annotations

from pathlib import Path

from bench.copies import PROMISE_BYTES, measure
from tests.proxy.copies.s3 import s3_server


async def test_a_large_result_is_copied_in_little_memory(tmp_path: Path) -> None:
    async with s3_server(tmp_path / "s3") as server:
        assert await measure(tmp_path, server, 96 * 1024**2) < PROMISE_BYTES
