"""Settings of the two listeners, the upstream and what is written to disk."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from policy.document import MAX_PARTS
from policy.sizes import Size
from proxy.config.units import Duration, Settings

Network = IPv4Network | IPv6Network
Port = Annotated[int, Field(ge=0, le=65535)]

_PREFIX = re.compile(r"(?:/(?!\.)[A-Za-z0-9._-]+)*")

UPLOAD_TYPES = ("image", "audio", "video", "mask", "3d", "text", "latent")
UploadType = Literal["image", "audio", "video", "mask", "heic", "jxl", "avif", "exr", "psd", "3d", "text", "latent"]


def parse_network(text: Any) -> Network:
    if not isinstance(text, str):
        raise ValueError('write a network such as "127.0.0.0/8"')
    return ip_network(text, strict=False)


def parse_origin(text: Any) -> str:
    """An origin as a browser sends it (RFC 6454): scheme, host and port, no path. Raises ValueError."""
    parts = urlsplit(text) if isinstance(text, str) else None
    if not parts or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError('write an origin such as "https://comfy.example.com"')
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise ValueError("an origin has no path, query or user name")
    check_port(parts)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def parse_prefix(text: Any) -> str:
    """A path prefix as "/comfy", without the slash at its end; "" for none. Raises ValueError."""
    if not isinstance(text, str) or not _PREFIX.fullmatch(text.rstrip("/")):
        raise ValueError('write a path such as "/comfy", of letters, digits, "-", "_" and "."')
    return text.rstrip("/")


def check_port(parts: SplitResult) -> None:
    """Raises ValueError for a port that is none: urlsplit looks at it only when it is asked."""
    _ = parts.port


class ServerSettings(Settings):
    """The public listener: what the tunnel points at."""

    host: str = "127.0.0.1"
    port: Port = 8190
    public_url: Annotated[str, BeforeValidator(parse_origin)] | None = None
    public_path: Annotated[str, BeforeValidator(parse_prefix)] = ""
    trusted_proxies: tuple[Annotated[Network, BeforeValidator(parse_network)], ...] = (
        IPv4Network("127.0.0.0/8"),
        IPv6Network("::1/128"),
    )
    share_web_ui: bool = False
    account_menu: bool = True
    cors_origins: tuple[Annotated[str, BeforeValidator(parse_origin)], ...] = ()
    max_prompt_bytes: Size = 8 * 1024**2
    max_prompt_parts: Annotated[int, Field(strict=True, ge=1000, le=MAX_PARTS)] = 100_000
    max_upload_bytes: Size = 100 * 1024**2
    max_picture_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    max_converted_bytes: Annotated[Size, Field(ge=1024**2)] = 1024**3
    max_header_bytes: Annotated[Size, Field(ge=1024, le=64 * 1024)] = 32 * 1024
    header_timeout: Annotated[Duration, Field(gt=0)] = 15.0
    body_timeout: Annotated[Duration, Field(gt=0)] = 30.0
    min_body_bytes_per_second: Size = 1024
    keepalive_timeout: Annotated[Duration, Field(gt=0)] = 120.0
    max_connections: Annotated[int, Field(ge=1)] = 4096
    shutdown_grace: Duration = 30.0
    reconnect_grace: Duration = 30.0
    state_dir: Path = Path("state")


class OpsSettings(Settings):
    """Health and metrics, on a listener of their own that is never tunnelled."""

    host: str = "127.0.0.1"
    port: Port = 9190


DEFAULT_URL = "http://127.0.0.1:8188"
Directory = Annotated[Path | None, BeforeValidator(lambda value: value or None)]
"""A folder; an empty text is none."""


def check_upstream_url(url: str) -> str:
    """Where a ComfyUI is, without a slash at its end. Raises ValueError."""
    parts = urlsplit(url)
    has_more = parts.path not in ("", "/") or parts.query or parts.fragment or parts.username
    if parts.scheme != "http" or not parts.hostname or has_more:
        raise ValueError('write ComfyUI\'s address as "http://127.0.0.1:8188", without a path')
    check_port(parts)
    return url.rstrip("/")


UpstreamUrl = Annotated[str, AfterValidator(check_upstream_url)]


class UpstreamSettings(Settings):
    """ComfyUI. url and directory are of the first one where there are several (`[[comfyui]]`), warmup is of the only one, the rest is of all."""

    url: UpstreamUrl = DEFAULT_URL
    directory: Directory = None
    connect_timeout: Annotated[Duration, Field(gt=0)] = 5.0
    shared_inputs: tuple[str, ...] = ()
    upload_types: tuple[UploadType, ...] = ("image", "audio", "video", "mask")
    packs: tuple[str, ...] = ()
    warmup: tuple[str, ...] = ()


class LogSettings(Settings):
    """The request log (standard error) and the audit trail (a file of JSON lines)."""

    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    audit_file: Path | None = None
    audit_max_bytes: Size = 64 * 1024**2
    audit_keep: Annotated[int, Field(ge=1, le=1000)] = 10

    @field_validator("audit_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None
