"""Settings of the bucket, or folder, that what jobs make is copied to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from proxy.config.server import check_port
from proxy.config.units import Duration, Settings

MAX_LINKS_S: Final = 7 * 86400
"""What Amazon and Google sign for at most."""
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_EXAMPLES: Final = (
    '"s3://bucket/prefix", "gs://bucket/prefix", "az://account/container/prefix" or "file:///srv/outputs"'
)


def parse_address(text: Any) -> str:
    """The origin of a server. Raises ValueError."""
    parts = urlsplit(text) if isinstance(text, str) else None
    if not parts or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError('write an address such as "https://s3.example.com"')
    if parts.query or parts.fragment or parts.username is not None or parts.password is not None:
        raise ValueError("an address has no query, user name or password: name credentials_file")
    check_port(parts)
    return str(text).rstrip("/")


Address = Annotated[str, BeforeValidator(parse_address)]


class StorageSettings(Settings):
    """`[storage]`. url: without one nothing is copied. endpoint: of a server that is not the cloud's own. public_endpoint: the same as clients reach it.

    links: how long a signed link works. keep_local: how long ComfyUI's folder keeps what is copied, None for ever.
    """

    url: str = ""
    endpoint: Address | None = None
    public_endpoint: Address | None = None
    region: Annotated[str, Field(pattern="^[A-Za-z0-9-]{1,64}$")] | None = None
    credentials_file: Path | None = None
    links: Annotated[Duration, Field(ge=1, le=MAX_LINKS_S)] = 3600.0
    keep_local: Annotated[Duration, Field(ge=60, le=36_525 * 86400)] | None = None

    @field_validator("url")
    @classmethod
    def _is_url(cls, text: str) -> str:
        if not text:
            return text
        parts = urlsplit(text)
        if parts.query or parts.fragment or parts.username is not None or parts.password is not None:
            raise ValueError("url has no query, user name or password: credentials are in credentials_file")
        segments = parts.path.strip("/").split("/") if parts.path.strip("/") else []
        if parts.scheme == "file":
            if parts.netloc or not segments:
                raise ValueError('name a folder of this machine as "file:///srv/outputs"')
            return text.rstrip("/")
        if parts.scheme not in ("s3", "gs", "az") or not _SEGMENT.fullmatch(parts.netloc):
            raise ValueError(f"write {_EXAMPLES}")
        if not all(_SEGMENT.fullmatch(segment) for segment in segments):
            raise ValueError('a prefix has letters, digits, "_", "-" and ".", and single slashes')
        if parts.scheme == "az" and not segments:
            raise ValueError('name account and container as "az://account/container"')
        return text.rstrip("/")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        is_local = self.kind in ("", "file")
        given = [name for name in ("endpoint", "public_endpoint", "region", "credentials_file") if getattr(self, name)]
        if is_local and given:
            raise ValueError(f"{given[0]} is of a bucket: url names {'a folder' if self.url else 'none'}")
        if not self.url and self.model_fields_set - {"url"}:
            raise ValueError(f"url is missing: write {_EXAMPLES}, or take [storage] out")
        if self.region and self.kind != "s3":
            raise ValueError("region is of s3")
        return self

    @property
    def kind(self) -> str:
        """s3, gs, az, file, or "" for none."""
        return self.url.partition(":")[0]

    @property
    def is_on(self) -> bool:
        return bool(self.url)
