"""What the tests of clients did, kept as test output: report.py makes docs/compatibility.md of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "test-output" / "compatibility"


@dataclass(frozen=True)
class Measurement:
    """One load of the web UI. way: direct or gate; load: cold or warm; sent: requests that were not served from the browser's cache."""

    way: str
    load: str
    requests: int
    sent: int
    received_bytes: int


def record(*, client: str, version: str, upstream: str, what: str, loads: Iterable[Measurement] = ()) -> None:
    """Called by a test at its end, so what is here has worked."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    row = {"client": client, "version": version, "upstream": upstream, "what": what}
    row["loads"] = [asdict(load) for load in loads]  # type: ignore[assignment]
    name = hashlib.sha256(f"{client}\n{upstream}\n{what}".encode()).hexdigest()[:16]
    (FOLDER / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
