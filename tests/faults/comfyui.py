"""`python -m tests.faults.comfyui PORT FOLDER RECORD`: the stand-in with the classes of `recording`, until it is killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from standin import StandIn
from tests.faults.recording import Record, recording_pack


async def serve(port: int, folder: Path, record: Record) -> None:
    stand_in = StandIn(folder, frontend=False, pack=recording_pack(record))
    await stand_in.start(port=port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]), Record(Path(sys.argv[3]))))
