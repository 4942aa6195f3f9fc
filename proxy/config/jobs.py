"""Settings of the gate's own jobs: where they are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import field_validator, model_validator

from proxy.config.postgres_url import check_postgres_url
from proxy.config.units import Settings


class JobsSettings(Settings):
    """database: "" for the SQLite file in state_dir."""

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
