"""What stands around each request: who asks, from where, within which limits, and what is written down of it. Microseconds of CPU and calls of
functions for each part of a small GET whose caller comes again on its connection. The promise is less than 15 microseconds together."""

from __future__ import annotations

import asyncio
import cProfile
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from multidict import CIMultiDict

from policy.call import ClientCall
from policy.routes import Budget
from proxy.auth.api_keys import ApiKeyStore, generate_key, hash_key
from proxy.auth.authenticator import Authenticator
from proxy.auth.csrf_cors import CsrfCors
from proxy.auth.misplaced_credentials import search_head
from proxy.auth.sessions import Sessions
from proxy.config.identity import KeySettings
from proxy.config.limits import LimitsSettings
from proxy.config.server import ServerSettings
from proxy.http.client_address import ClientAddresses
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from proxy.http.responses import is_upgrade
from proxy.limits.effective_limits import EffectiveLimits
from proxy.limits.rate_limiter import Limiter
from proxy.limits.underway import UnderWay
from proxy.observability.access_log import Recorder, RequestLog
from proxy.observability.audit_log import AuditTrail
from proxy.observability.metrics import Metrics
from proxy.observability.queued_writer import LINES_TOGETHER, QueuedWriter
from proxy.running_requests import RunningRequests

ROUNDS: Final = 7
CALLS: Final = 10_000
PROFILED: Final = 100
TARGET_US: Final = 15.0
_FIELDS: Final = {
    "Host": "gate.example",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en",
    "CF-Connecting-IP": "203.0.113.7",
}
Part = Callable[[], object]


def cost(part: Part, calls: int) -> tuple[float, float]:
    """Microseconds of this process's CPU, threads included, the least of several rounds; and calls of functions."""
    rounds = []
    for _ in range(ROUNDS):
        began_s = time.process_time()
        for _ in range(calls):
            part()
        rounds.append((time.process_time() - began_s) / calls * 1e6)
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(PROFILED):
        part()
    profile.disable()
    return min(rounds), cast(Any, pstats.Stats(profile)).total_calls / PROFILED


async def parts(recorder: Recorder) -> dict[str, Part]:
    key_id, key = generate_key()
    ring = ApiKeyStore([KeySettings.model_validate({"id": key_id, "hash": hash_key(key), "tenant": "acme"})])
    authenticator = Authenticator(ring, Sessions(b"s" * 32, lifetime_s=3600, is_secure=True), None, None)
    fields = CIMultiDict({**_FIELDS, "Authorization": f"Bearer {key}"})
    request = Request("GET", "/embeddings", fields, connection=cast(Any, SimpleNamespace(peer="127.0.0.1")))
    principal = await authenticator.authenticate(fields, ())
    limits = EffectiveLimits(LimitsSettings.model_validate({"default": {"requests": "1000000000/minute"}}), {})
    limiter, under_way, origins = Limiter(limits), UnderWay(limits, lambda: 4096), CsrfCors(None)
    addresses = ClientAddresses(ServerSettings().trusted_proxies)
    running = RunningRequests(lambda who: authenticator.is_alive(who, time.time()))
    call, cookie_name = ClientCall("GET", ("embeddings",)), authenticator.sessions.cookie_name
    record = RequestRecord.begin(request, "203.0.113.7")
    record.route, record.principal, record.status = "GET /embeddings", principal, 200
    record.sent_bytes, record.upstream_s = 200, 0.001

    def run() -> None:
        running.begin(request, record)
        running.check(principal)
        running.end(record)

    def stay() -> None:
        under_way.enter_at_once(principal.tenant)
        under_way.leave(principal.tenant)

    return {
        "from where": lambda: addresses.of(request.remote, fields),
        "a record begins": lambda: RequestRecord.begin(request, "203.0.113.7"),
        "that it runs": run,
        "who": lambda: authenticator.recall(fields, (), request.of_fields),
        "by which page": lambda: origins.check("GET", is_upgrade(request), fields, principal),
        "its rates": lambda: limiter.acquire_at_once(principal, Budget.READ),
        "its place": stay,
        "no key elsewhere": lambda: search_head(request, (), call, cookie_name),
        "log and metrics": lambda: recorder.record(record),
    }


@contextmanager
def written() -> Iterator[Recorder]:
    """Writes into nothing, by a thread, as the gate does."""
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("ab", buffering=0) as stream:
        lines = QueuedWriter(stream.write, max_lines=10 * CALLS * ROUNDS, together=LINES_TOGETHER)
        audit = AuditTrail(Path(folder) / "audit.jsonl", 1024**2, 1)
        audit.open()
        try:
            yield Recorder(Metrics(), RequestLog(stream, "json", lines), audit)
        finally:
            lines.close()
            audit.close()


async def run(calls: int = CALLS) -> dict[str, tuple[float, float]]:
    """By part: microseconds and calls."""
    with written() as recorder:
        return {name: cost(part, calls) for name, part in (await parts(recorder)).items()}


def main() -> None:
    found = asyncio.run(run())
    print(f"{'around each request':<20} {'µs CPU':>8} {'calls':>6}")
    for name, (cost_us, calls) in found.items():
        print(f"{name:<20} {cost_us:>8.2f} {calls:>6.0f}")
    together = sum(cost_us for cost_us, _ in found.values())
    print(f"{'together':<20} {together:>8.2f} {sum(calls for _, calls in found.values()):>6.0f}")
    if together >= TARGET_US:
        sys.exit(f"The promise of {TARGET_US:.0f} µs is broken.")


if __name__ == "__main__":
    main()
