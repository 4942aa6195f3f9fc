"""Settings of rates, slots, budgets and weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from policy.sizes import Size, parse_size
from proxy.config.redis_url import check_redis_url
from proxy.config.units import Duration, Rates, Settings

_STORAGE = re.compile(r"memory|rediss?://.+")
_BYTES_RATE = re.compile(r"(.+?)\s*/\s*(second|minute|hour|day)s?")


def parse_byte_rates(text: Any) -> str:
    """ "1GiB/hour; 10GiB/day" as "1073741824/hour; 10737418240/day". Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError('write a rate of bytes such as "1GiB/hour"')
    parts = []
    for part in text.split(";"):
        found = _BYTES_RATE.fullmatch(part.strip())
        if not found:
            raise ValueError('write a rate of bytes such as "1GiB/hour"')
        parts.append(f"{parse_size(found[1])}/{found[2]}")
    return "; ".join(parts)


class LimitSettings(Settings):
    """What a tenant (or, where a key names it, a key) may use up. Absent means no limit of that kind, but for the defaults."""

    requests: Rates | None = "600/minute"
    prompts: Rates | None = "30/minute"
    uploads: Rates | None = "60/minute"
    polls: Rates | None = "1800/minute"
    web_ui_files: Rates | None = "6000/minute"
    previews: Rates | None = "300/minute"
    upload_bytes: Annotated[str, BeforeValidator(parse_byte_rates)] | None = None
    queued_jobs: Annotated[int, Field(ge=0)] | None = 10
    job_seconds: Annotated[int, Field(ge=1)] | None = None
    running_jobs: Annotated[int, Field(ge=0)] | None = None
    concurrent_requests: Annotated[int, Field(ge=1)] | None = 64
    websockets: Annotated[int, Field(ge=0)] | None = 16
    websockets_per_key: Annotated[int, Field(ge=0)] | None = None
    gpu_seconds: Rates | None = None
    weight: Annotated[float, Field(ge=0.001, le=1000)] = 1.0
    storage: Size | None = None
    retention: Annotated[Duration, Field(gt=0)] | None = None


class LoginLimitSettings(Settings):
    """Failed logins per address (IPv6 by /64) and per key id."""

    failures: Rates = "10/minute"
    delay: Duration = 0.25
    max_delay: Duration = 4.0


class LimitsSettings(Settings):
    """`[limits]`: the store, and a table of named limits beside it. The gate lifts `[limits.<name>]` into `named`."""

    storage: str = "memory"
    storage_file: Path | None = None
    storage_timeout: Annotated[Duration, Field(gt=0, le=5)] = 0.25
    logins: LoginLimitSettings = LoginLimitSettings()
    named: dict[str, LimitSettings] = {}

    @model_validator(mode="before")
    @classmethod
    def _lift_named(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        lifted = value.get("named")
        if (
            isinstance(lifted, dict)
            and lifted
            and all(isinstance(part, dict | LimitSettings) for part in lifted.values())
        ):
            return value
        own = {name: value[name] for name in ("storage", "storage_file", "storage_timeout", "logins") if name in value}
        named = {name: part for name, part in value.items() if name not in own}
        return {**own, "named": {"default": {}, **named}}

    @field_validator("storage")
    @classmethod
    def _is_storage(cls, text: str) -> str:
        if not _STORAGE.fullmatch(text):
            raise ValueError('write "memory" or "redis://host:6379/0"')
        return text if text == "memory" else check_redis_url(text)

    @model_validator(mode="after")
    def _has_one_storage(self) -> Self:
        if self.storage_file is not None and self.storage != "memory":
            raise ValueError("give storage or storage_file, not both")
        return self
