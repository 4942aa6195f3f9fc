"""How a job failed, as it stands in the gate's database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policy.v2.jobs import JobError


def error_of(failure: Any) -> JobError | None:
    """failure: what `failure_of` wrote, None for none."""
    return None if failure is None else JobError(*failure)


def failure_of(error: JobError | None) -> Sequence[str | None] | None:
    return None if error is None else (error.code, error.message, error.node_id, error.class_type)
