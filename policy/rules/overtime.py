"""A job that ran longer than its tenant's `job_seconds` was interrupted by the gate: it failed, and its tenant is told why, wherever it looks.

ComfyUI itself only knows that it was interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policy.rule_context import OwnJobs

KIND: Final = "JobTimeLimit"
"""The `exception_type` of such a job."""


def describe(data: Mapping[str, Any], limit_s: int) -> dict[str, Any]:
    """The data of an `execution_interrupted` event as that of an `execution_error`. limit_s: how long the job might run."""
    return {
        **data,
        "exception_message": f"The job ran longer than the {limit_s} s that one job may run (job_seconds), and was stopped.",
        "exception_type": KIND,
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
    }


def mark_entry(value: Any, prompt_id: str, jobs: OwnJobs) -> Any:
    """ComfyUI's answer of `GET /history/{id}`, with the reason where the job was stopped for its time."""
    limit_s = jobs.stopped_after_s(prompt_id)
    entry = value.get(prompt_id) if isinstance(value, dict) else None
    if limit_s is None or not isinstance(entry, dict) or not isinstance(entry.get("status"), dict):
        return value
    return {**value, prompt_id: {**entry, "status": _mark_status(entry["status"], limit_s)}}


def mark_row(value: Any, prompt_id: str, jobs: OwnJobs) -> Any:
    """The same for `GET /api/jobs/{id}`."""
    limit_s = jobs.stopped_after_s(prompt_id)
    if limit_s is None or not isinstance(value, dict) or value.get("status") != "cancelled":
        return value
    marked = value | {"status": "failed", "execution_error": describe({"prompt_id": prompt_id}, limit_s)}
    if isinstance(value.get("execution_status"), dict):
        marked["execution_status"] = _mark_status(value["execution_status"], limit_s)
    return marked


def _mark_status(status: dict[str, Any], limit_s: int) -> dict[str, Any]:
    messages = status.get("messages")
    marked = [_mark_message(message, limit_s) for message in messages] if isinstance(messages, list) else []
    return status | {"status_str": "error", "messages": marked}


def _mark_message(message: Any, limit_s: int) -> Any:
    match message:
        case ["execution_interrupted", dict() as data]:
            return ["execution_error", describe(data, limit_s)]
    return message
