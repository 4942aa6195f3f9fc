"""GET /api/jobs: queue items and history entries in one shape (comfy_execution/jobs.py of ComfyUI 0.33)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from standin.promptqueue import Item

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
PREVIEWABLE = frozenset({"images", "video", "audio", "3d", "text"})
MODEL_EXTENSIONS = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
TEXT_EXTENSIONS = (".txt", ".md", ".json")
MAX_TEXT_PREVIEW = 1024


class BadListing(ValueError):
    """A query that GET /api/jobs refuses; the message is ComfyUI's."""


def check_job_id(value: object) -> str:
    """A canonical lower-case UUID with hyphens, or ValueError."""
    if not isinstance(value, str) or str(uuid.UUID(value)) != value:
        raise ValueError("not a canonical UUID")
    return value


def from_queue(item: Item, status: str) -> dict[str, Any]:
    number, prompt_id, _, extra_data, _ = item
    return _without_none(
        {
            "id": prompt_id,
            "status": status,
            "priority": number,
            "create_time": extra_data.get("create_time"),
            "outputs_count": 0,
            "previewable_outputs_count": 0,
            "workflow_id": _workflow_id(extra_data),
        }
    )


def from_history(prompt_id: str, entry: Mapping[str, Any], *, is_complete: bool = False) -> dict[str, Any]:
    number, _, graph, extra_data, _ = entry["prompt"]
    status = entry.get("status") or {}
    messages: dict[str, Any] = dict(status.get("messages", []))
    ends = [
        messages[name] for name in ("execution_success", "execution_error", "execution_interrupted") if name in messages
    ]
    outputs = entry.get("outputs", {})
    items = list(_output_items(outputs))
    job = _without_none(
        {
            "id": prompt_id,
            "status": _history_status(status, messages),
            "priority": number,
            "create_time": extra_data.get("create_time"),
            "execution_start_time": messages.get("execution_start", {}).get("timestamp"),
            "execution_end_time": ends[0].get("timestamp") if ends else None,
            "execution_error": messages.get("execution_error"),
            "outputs_count": len(items),
            "previewable_outputs_count": sum(_is_previewable(media, item) for _, media, item in items),
            "preview_output": _preview(items) or _text_preview(outputs),
            "workflow_id": _workflow_id(extra_data),
        }
    )
    if is_complete:
        job["outputs"] = _normalised(outputs)
        job["execution_status"] = entry.get("status")
        job["workflow"] = {"prompt": graph, "extra_data": extra_data}
    return job


def list_jobs(
    running: list[Item], pending: list[Item], history: Mapping[str, Any], query: Mapping[str, str]
) -> dict[str, Any]:
    statuses = _wanted_statuses(query.get("status"))
    sort_by, order = query.get("sort_by", "created_at").lower(), query.get("sort_order", "desc").lower()
    if sort_by not in ("created_at", "execution_duration"):
        raise BadListing("sort_by must be 'created_at' or 'execution_duration'")
    if order not in ("asc", "desc"):
        raise BadListing("sort_order must be 'asc' or 'desc'")
    limit = _whole("limit", query.get("limit"))
    if limit is not None and limit <= 0:
        raise BadListing("limit must be a positive integer")
    offset = max(0, _whole("offset", query.get("offset")) or 0)
    jobs = [from_queue(item, "in_progress") for item in running if "in_progress" in statuses]
    jobs += [from_queue(item, "pending") for item in pending if "pending" in statuses]
    if set(statuses) - {"in_progress", "pending"}:
        finished = (from_history(prompt_id, entry) for prompt_id, entry in history.items())
        jobs += [job for job in finished if job["status"] in statuses]
    if query.get("workflow_id"):
        jobs = [job for job in jobs if job.get("workflow_id") == query["workflow_id"]]
    jobs.sort(key=_duration if sort_by == "execution_duration" else _created, reverse=order == "desc")
    page = jobs[offset:] if limit is None else jobs[offset : offset + limit]
    has_more = offset + len(page) < len(jobs)
    return {
        "jobs": page,
        "pagination": {"offset": offset, "limit": limit, "total": len(jobs), "has_more": has_more},
    }


def _wanted_statuses(text: str | None) -> tuple[str, ...]:
    if not text:
        return STATUSES
    statuses = tuple(each.strip().lower() for each in text.split(",") if each.strip())
    unknown = [each for each in statuses if each not in STATUSES]
    if unknown:
        raise BadListing(f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUSES)}")
    return statuses


def _whole(name: str, text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        raise BadListing(f"{name} must be an integer") from None


def _history_status(status: Mapping[str, Any], messages: Mapping[str, Any]) -> str:
    if status.get("status_str") == "error":
        return "cancelled" if "execution_interrupted" in messages else "failed"
    return "completed"


def _workflow_id(extra_data: Mapping[str, Any]) -> Any:
    found: Any = extra_data
    for key in ("extra_pnginfo", "workflow", "id"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _created(job: Mapping[str, Any]) -> Any:
    return job.get("create_time", 0)


def _duration(job: Mapping[str, Any]) -> Any:
    start, end = job.get("execution_start_time", 0), job.get("execution_end_time", 0)
    return end - start if start and end else 0


def _output_items(outputs: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(node id, media type, item) of every countable item; plain texts are not counted."""
    for node_id, by_media in outputs.items():
        for media, items in by_media.items():
            if media == "animated" or not isinstance(items, list):
                continue
            for item in items:
                normal = _normal_item(item)
                if isinstance(normal, dict):
                    yield node_id, media, normal


def _normal_item(item: Any) -> Any:
    if isinstance(item, str) and item.lower().endswith(MODEL_EXTENSIONS):
        return {"filename": item, "type": "output", "subfolder": "", "mediaType": "3d"}
    return item


def _normalised(outputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        node_id: {
            media: [_normal_item(item) for item in items if item is not None] if isinstance(items, list) else items
            for media, items in by_media.items()
        }
        for node_id, by_media in outputs.items()
    }


def _is_previewable(media: str, item: Mapping[str, Any]) -> bool:
    name = str(item.get("filename", "")).lower()
    is_known_format = str(item.get("format") or "").startswith(("video/", "audio/"))
    return media in PREVIEWABLE or is_known_format or name.endswith(MODEL_EXTENSIONS + TEXT_EXTENSIONS)


def _preview(items: list[tuple[str, str, dict[str, Any]]]) -> dict[str, Any] | None:
    """A saved picture before a temporary one, and both before a text file."""
    ranked: dict[int, dict[str, Any]] = {}
    for node_id, media, item in items:
        if not _is_previewable(media, item):
            continue
        is_text = media == "text" or str(item.get("filename", "")).lower().endswith(TEXT_EXTENSIONS)
        rank = 2 if is_text else int(item.get("type") != "output")
        ranked.setdefault(rank, {"mediaType": media, **item, "nodeId": node_id})
    return ranked[min(ranked)] if ranked else None


def _text_preview(outputs: Mapping[str, Any]) -> dict[str, Any] | None:
    for node_id, by_media in outputs.items():
        for text in by_media.get("text", []):
            content = str(text)
            cut = {"truncated": True} if len(content) > MAX_TEXT_PREVIEW else {}
            return {"content": content[:MAX_TEXT_PREVIEW], **cut, "nodeId": node_id, "mediaType": "text"}
    return None


def _without_none(job: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in job.items() if value is not None}
