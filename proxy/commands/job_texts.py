"""How `comfygate jobs` writes a job: as a line of a table, in full for a person, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from proxy.commands.terminal import printable
from proxy.jobs.job_rows import CANCEL, JobRow, StoredState

TABLE_HEAD: Final = ("ID", "TENANT", "STATE", "SUBMITTED", "TIME", "NOTE")
_STEPS: Final = (("d", 86400), ("h", 3600), ("m", 60))


def cells_of(job: JobRow, now_s: float) -> tuple[str, ...]:
    return (job.prompt_id, job.tenant, job.state, _moment(job.created_at_s), _taken(job, now_s), note_of(job, now_s))


def in_columns(rows: Sequence[Sequence[str]]) -> str:
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in shown)
    return "\n".join(line.rstrip() for line in lines)


def note_of(job: JobRow, now_s: float) -> str:
    """What is unusual about it."""
    if job.has_ended:
        return ": ".join(part for part in (job.error, job.failing_class) if part)
    if job.state == StoredState.WAITING:
        return f"tried {len(job.told_attempts())} times before" if job.told_attempts() else ""
    if job.lease_until_s < now_s:
        return "No gate follows it."
    return {CANCEL: "to be canceled", "unsure": "ComfyUI did not say whether it took it"}.get(job.wish, "")


def describe(job: JobRow, now_s: float) -> str:
    """Line by line; what is not known of it is left out."""
    fields = [
        ("job", job.prompt_id),
        ("tenant", job.tenant),
        ("submitted", _moment(job.created_at_s)),
        ("by", job.subject),
        ("client id", job.client_id),
        ("state", f"{job.state}, {_taken(job, now_s)}"),
        ("note", note_of(job, now_s)),
        ("priority", f"{-job.rank:g}" if job.rank else ""),
        ("started", _moment(job.started_at_s)),
        ("ended", _moment(job.ended_at_s)),
        ("GPU time", f"{job.gpu_s:.1f} s" if job.has_ended else f"{job.cost_s:.1f} s are expected"),
        ("ComfyUI", "" if job.state == StoredState.WAITING else job.comfyui),
        ("followed by", "" if job.has_ended else job.gate),
        ("kept", f"{job.size} bytes"),
    ]
    fields += [(f"attempt {number}", _attempt(each)) for number, each in enumerate(job.told_attempts(), 1)]
    return "\n".join(f"{name:<11}  {printable(text)}" for name, text in fields if text)


def as_json(job: JobRow) -> dict[str, Any]:
    """Times are ISO 8601 in UTC, null for what has not been."""
    attempts = [
        {
            "started_at": _iso(each.get("at")),
            "ended_at": _iso(each.get("ended")),
            "comfyui": each.get("comfyui"),
            "reason": each.get("reason"),
        }
        for each in job.told_attempts()
    ]
    return {
        "id": job.prompt_id,
        "tenant": job.tenant,
        "subject": job.subject,
        "client_id": job.client_id,
        "workflow": job.workflow,
        "state": job.state,
        "priority": -job.rank,
        "created_at": _iso(job.created_at_s),
        "started_at": _iso(job.started_at_s),
        "ended_at": _iso(job.ended_at_s),
        "expected_gpu_seconds": job.cost_s,
        "gpu_seconds": job.gpu_s,
        "error": job.error,
        "failing_class": job.failing_class,
        "comfyui": job.comfyui,
        "gate": job.gate,
        "attempts": attempts,
        "bytes": job.size,
    }


def _attempt(each: dict[str, Any]) -> str:
    ended = each.get("ended")
    end = f"until {_moment(ended)}: {each.get('reason')}" if ended is not None else "not ended"
    where = f" {each['comfyui']}" if each.get("comfyui") else ""
    return f"{_moment(each.get('at'))}{where} {end}"


def _taken(job: JobRow, now_s: float) -> str:
    """How long it waits, runs or ran."""
    if job.state in (StoredState.WAITING, StoredState.DISPATCHED):
        return f"waits {_duration(now_s - job.created_at_s)}"
    if job.started_at_s is None:
        return "never ran"
    if job.ended_at_s is None:
        return f"runs {_duration(now_s - job.started_at_s)}"
    return f"ran {_duration(job.ended_at_s - job.started_at_s)}"


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    for unit, size in _STEPS:
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def _moment(time_s: float | None) -> str:
    return "" if time_s is None else datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _iso(time_s: float | None) -> str | None:
    return None if time_s is None else datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")
