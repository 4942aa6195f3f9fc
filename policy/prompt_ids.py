"""How ComfyUI spells the id of a job."""

from __future__ import annotations

import uuid


def is_prompt_id(value: object) -> bool:
    """A UUID in lower case with hyphens, which is all that ComfyUI takes and compares (0.33, comfy_execution/jobs.py, validate_job_id)."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False
