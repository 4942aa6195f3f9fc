"""Settings of the gate's own jobs: where they are kept, for how long, and how many ComfyUI has at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from policy.sizes import Size
from proxy.config.postgres_url import check_postgres_url
from proxy.config.units import Duration, Settings


class JobsSettings(Settings):
    """`[jobs]`. The bounds of the history are of each tenant alone, so that nobody's jobs push out a neighbour's.

    window: jobs that ComfyUI has at once, the running one among them. history: seconds since a job ended. history_jobs: ended jobs.
    history_bytes: of their documents. retry_interrupted: whether a job runs once more when ComfyUI went away while it ran.
    database: "" for the SQLite file in state_dir.
    """

    window: Annotated[int, Field(strict=True, ge=1, le=64)] = 2
    history: Annotated[Duration, Field(gt=0, le=36_525 * 86400)] = 30 * 86400.0
    history_jobs: Annotated[int, Field(strict=True, ge=1, le=10_000_000)] = 10_000
    history_bytes: Annotated[Size, Field(ge=1, le=1024**5)] = 512 * 1024**2
    retry_interrupted: Annotated[bool, Field(strict=True)] = True
    database: str = ""
    database_file: Path | None = None

    @field_validator("database")
    @classmethod
    def _is_database(cls, text: str) -> str:
        return text and check_postgres_url(text)

    @model_validator(mode="after")
    def _has_one_database(self) -> Self:
        if self.database_file is not None and self.database:
            raise ValueError("give database or database_file, not both")
        return self
