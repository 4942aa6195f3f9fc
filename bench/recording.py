"""What writing down costs: log line, metrics and audit entry of one request, in microseconds of CPU. The promise is less than 20."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from policy.principal import Principal, parse_tenant
from proxy.http.request_record import RequestRecord
from proxy.observability.access_log import Recorder, RequestLog
from proxy.observability.audit_log import AuditTrail
from proxy.observability.metrics import Metrics

ROUNDS: Final = 5
CALLS: Final = 10_000
TARGET_US: Final = 20.0
_MIB: Final = 1024**2
_ALICE: Final = Principal("0123abcd", parse_tenant("alice"))

Make = Callable[[], RequestRecord]


def _read() -> RequestRecord:
    return _record("GET", "GET /view", 200)


def _refused() -> RequestRecord:
    record = _record("GET", "unlisted", 404)
    record.reason = "route-unlisted"
    return record


def _submission() -> RequestRecord:
    record = _record("POST", "POST /prompt", 200)
    record.submits = True
    classes = ["CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage", "KSampler", "SaveImage", "VAEDecode"]
    record.notes = {
        "prompt_id": "11111111-2222-3333-4444-555555555555",
        "workflow": "5" * 16,
        "classes": classes,
    }
    return record


def _record(method: str, route: str, status: int) -> RequestRecord:
    record = RequestRecord(method, "0123456789abcdef", "203.0.113.7", "0123456789abcdef-FRA", route, _ALICE, status)
    record.received_bytes, record.sent_bytes, record.upstream_s = 2000, 400_000, 0.002
    return record


def cpu_us(recorder: Recorder, make: Make, calls: int) -> float:
    """Of one request written down: user and system time of this process, without making the record; the least of several rounds."""
    rounds = []
    for _ in range(ROUNDS):
        records = [make() for _ in range(calls)]
        began_s = time.process_time()
        for record in records:
            recorder.record(record)
        rounds.append((time.process_time() - began_s) / calls * 1e6)
    return min(rounds)


def run(calls: int = CALLS) -> dict[str, float]:
    """Microseconds by kind of request; log and audit trail are real files."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log.jsonl").open("ab", buffering=0) as stream:
        audit = AuditTrail(Path(folder) / "audit.jsonl", 64 * _MIB, 10)
        audit.open()
        try:
            recorder = Recorder(Metrics(), RequestLog(stream, "json"), audit)
            kinds = {"a read": _read, "a refused route": _refused, "a submission": _submission}
            return {name: cpu_us(recorder, make, calls) for name, make in kinds.items()}
        finally:
            audit.close()


def main() -> None:
    found = run()
    print(f"log, metrics and audit of one request (µs of CPU, promise: less than {TARGET_US:.0f})")
    for name, cost_us in found.items():
        print(f"{name:<20} {cost_us:>7.1f}")
    if max(found.values()) >= TARGET_US:
        sys.exit("The promise is broken.")


if __name__ == "__main__":
    main()
