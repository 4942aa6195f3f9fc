"""One log line and the metrics of each request. Never a path, a query, a credential or a prompt's text: names of rows and ids only."""

from __future__ import annotations

import atexit
import logging
import sys
import time
from functools import lru_cache
from typing import Any, BinaryIO, Literal

import orjson

from proxy.config.server import LogSettings
from proxy.http.request_record import RequestRecord
from proxy.observability.audit_log import AuditTrail
from proxy.observability.metrics import Metrics
from proxy.observability.queued_writer import LINES_TOGETHER, QueuedWriter, write_all
from proxy.observability.recent_refusals import RecentRefusals
from proxy.observability.sampling import LIMITED, Sampler


class RequestLog:
    """Writes one line per request: JSON, or words for a terminal."""

    def __init__(self, stream: BinaryIO, style: Literal["json", "text"], lines: QueuedWriter | None = None) -> None:
        """lines: what writes to the stream in the place of the caller, who would wait for its reader."""
        self._stream = stream
        self._line_of = _json if style == "json" else _text
        self._lines = lines
        self._sampler = Sampler()
        self._put = self._write if lines is None else lines.put

    @property
    def dropped(self) -> int:
        """Lines that were not written since the start."""
        return 0 if self._lines is None else self._lines.dropped

    def write(self, record: RequestRecord) -> None:
        left_out = self._sampler.left_out(record) if record.status == LIMITED else 0
        if left_out is None:
            return
        try:
            self._put(self._line_of(record, left_out))
        except (OSError, ValueError):
            return  # a closed log must not take the gate down

    def _write(self, line: bytes) -> None:
        self._stream.write(line)
        self._stream.flush()


class Recorder:
    """What happens once per request, whatever became of it."""

    def __init__(self, metrics: Metrics, log: RequestLog, audit: AuditTrail) -> None:
        self.refusals = RecentRefusals()
        self._metrics = metrics
        self._log = log
        self._audit = audit

    def record(self, record: RequestRecord) -> None:
        """record: of a request that has ended."""
        record.elapsed_s = time.perf_counter() - record.started_s
        self._metrics.count(record)
        self._log.write(record)
        self._audit.record(record)
        if record.notes:
            self.refusals.add(record)

    def fetched(self, record: RequestRecord, origin: str, result: str, note: str) -> None:
        """A file was fetched for a request, or was not. origin: of its address; path and query may hold what is for nobody else."""
        who = record.principal
        tenant, subject = ("", "") if who is None else (who.tenant, who.subject)
        self._metrics.fetches.labels(tenant, result).inc()
        self._audit.write(
            "fetch",
            request_id=record.request_id,
            tenant=tenant,
            subject=subject,
            origin=origin,
            result=result,
            **({"note": note} if note else {}),
        )

    def converted(self, kind: str, result: str, seconds: float) -> None:
        """See Metrics.converted."""
        self._metrics.converted(kind, result, seconds)

    def count_dropped(self) -> None:
        """Just before a scrape."""
        self._metrics.lines_dropped(log=self._log.dropped, audit=self._audit.dropped)


def request_log(style: Literal["auto", "json", "text"], lines: QueuedWriter | None = None) -> RequestLog:
    """The log on standard error, which `lines` writes; `auto` is text on a terminal and JSON elsewhere."""
    if style == "auto":
        style = "text" if sys.stderr.isatty() else "json"
    return RequestLog(sys.stderr.buffer, style, lines)


def standard_error() -> QueuedWriter:
    """One writer for the request log and the gate's own words, so that they stand in their order."""

    writer = QueuedWriter(lambda lines: write_all(sys.stderr.buffer, lines), together=LINES_TOGETHER)
    atexit.register(writer.close)
    return writer


@lru_cache(maxsize=4)
def _time_of(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def _json(record: RequestRecord, left_out: int) -> bytes:
    """Times are to a microsecond."""
    principal, upstream_s = record.principal, record.upstream_s
    gate_s = record.elapsed_s - upstream_s
    fields: dict[str, Any] = {
        "time": _time_of(int(time.time())),
        "event": "request",
        "request_id": record.request_id,
        "client": record.client,
        "method": record.method,
        "route": record.route,
        "status": record.status,
        "tenant": principal.tenant if principal is not None else None,
        "subject": principal.subject if principal is not None else None,
        "received_bytes": record.received_bytes,
        "sent_bytes": record.sent_bytes,
        "gate_ms": int(gate_s * 1e6 + 0.5) / 1e3 if gate_s > 0 else 0.0,
        "upstream_ms": int(upstream_s * 1e6 + 0.5) / 1e3,
    }
    if record.reason:
        fields["reason"] = record.reason
    if record.cf_ray:
        fields["cf_ray"] = record.cf_ray
    if left_out:
        fields["left_out"] = left_out
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def _text(record: RequestRecord, left_out: int) -> bytes:
    who = f"{record.principal.tenant}/{record.principal.subject}" if record.principal else "-"
    colour = "32" if record.status < 400 else "33" if record.status < 500 else "31"
    why = f" {record.reason}" if record.reason else ""
    why += f" (and {left_out} more before)" if left_out else ""
    return (
        f"{time.strftime('%H:%M:%S')} \x1b[{colour}m{record.status}\x1b[0m {record.route} {who} "
        f"{record.elapsed_s * 1000:.1f} ms{why} [{record.request_id}]\n"
    ).encode()


def set_up_logging(settings: LogSettings, lines: QueuedWriter | None = None) -> None:
    """The gate's own words go to standard error, in the style of the request log."""
    handler = logging.StreamHandler(sys.stderr) if lines is None else _Queued(lines)
    is_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    handler.setFormatter(_JsonLines() if is_json else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("comfygate")
    logger.handlers[:] = [handler]
    logger.setLevel(settings.level.upper())
    logger.propagate = False


class _Queued(logging.Handler):
    """SECURITY: a log whose reader is stuck would stop the gate for everybody (tests/security/test_stuck_log.py)."""

    def __init__(self, lines: QueuedWriter) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put(self.format(record).encode(errors="replace") + b"\n")
        except Exception:
            self.handleError(record)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "event": "log",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()
