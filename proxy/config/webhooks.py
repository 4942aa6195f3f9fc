"""Settings of webhooks: who outside is told of a tenant's jobs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from policy.webhooks import ENDS, Event
from proxy.config.identity import Tenant
from proxy.config.server import check_port
from proxy.config.units import Settings

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_PRINTABLE: Final = re.compile(r"[!-~]{1,2000}")


class WebhookSettings(Settings):
    """`[[webhooks]]`: an endpoint. name: lasts when the address changes. previous_secret_file: signs too, while receivers change to the new one.

    allow_private: whether it may be on this machine or in a private network.
    """

    name: str
    tenant: Tenant
    url: str
    secret_file: Path
    previous_secret_file: Path | None = None
    events: tuple[Event, ...] = ENDS
    allow_private: Annotated[bool, Field(strict=True)] = False

    @field_validator("name")
    @classmethod
    def _is_name(cls, text: str) -> str:
        return check_name(text)

    @field_validator("url")
    @classmethod
    def _is_url(cls, text: str) -> str:
        parts = urlsplit(text)
        if not _PRINTABLE.fullmatch(text) or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError('write an address such as "https://shop.example.com/webhooks"')
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise ValueError("an address has no user name, password or fragment; the signature proves who sends")
        check_port(parts)
        return text

    @field_validator("events")
    @classmethod
    def _is_told_something(cls, events: tuple[Event, ...]) -> tuple[Event, ...]:
        if not events:
            raise ValueError("name at least one event, or leave the line out for the ends of jobs")
        return events

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme == "http" and not (self.allow_private and parts.hostname in _LOOPBACK):
            raise ValueError("url must be https; http is for this machine alone, with allow_private = true")
        return self

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)


def check_name(text: str) -> str:
    """Raises ValueError."""
    if not _NAME.fullmatch(text):
        raise ValueError('a webhook\'s name has lower-case letters, digits and "-", 63 at most')
    return text
