"""Reads config.toml into one frozen value, or reports every mistake at once with its key path and line."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

from pydantic import Field, ValidationError, model_validator

from policy.custom_routes import RouteSettings
from policy.route_conflicts import find_conflicts
from policy.settings import PolicySettings
from policy.table import ROUTES
from policy.webhooks import OF_STORAGE
from proxy.config.comfyui import FIRST, ComfyUISettings
from proxy.config.identity import (
    CloudflareAccessSettings,
    JwtSettings,
    KeySettings,
    SessionSettings,
    Tenant,
    TenantSettings,
)
from proxy.config.jobs import JobsSettings
from proxy.config.limits import LimitsSettings
from proxy.config.packs import load_packs
from proxy.config.server import DEFAULT_URL, LogSettings, OpsSettings, ServerSettings, UpstreamSettings
from proxy.config.storage import StorageSettings
from proxy.config.units import Settings
from proxy.config.webhooks import WebhookSettings

# What may come from the environment instead of the file: COMFYGATE_LIMITS_STORAGE for [limits] storage, and so on.
ENVIRONMENT = {
    "COMFYGATE_UPSTREAM_URL": ("upstream", "url"),
    "COMFYGATE_LIMITS_STORAGE": ("limits", "storage"),
    "COMFYGATE_JOBS_DATABASE": ("jobs", "database"),
    "COMFYGATE_STORAGE_URL": ("storage", "url"),
}
AUDIT_FILE: Final = "audit.jsonl"
_HEADER = re.compile(r"\s*(\[\[?)([^\[\]]+)\]\]?\s*(?:#.*)?")
_ASSIGNMENT = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Mistake:
    """path: "keys[0].tenant"; line: of the file, None where the key is absent and nothing near it is there."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.path}: {self.message}" if self.path else f"{place}{self.message}"


class ConfigError(Exception):
    """The configuration is not usable. mistakes: all of them."""

    def __init__(self, file: Path, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(f"{file}: {mistake}" for mistake in mistakes))
        self.file = file
        self.mistakes = mistakes


@lru_cache(maxsize=16)
def _only(url: str, directory: Path | None, warmup: tuple[str, ...]) -> tuple[ComfyUISettings, ...]:
    """Made once: each request asks for it."""
    return (ComfyUISettings(name=FIRST, url=url, directory=directory, warmup=warmup),)


class Config(Settings):
    server: ServerSettings = ServerSettings()
    ops: OpsSettings = OpsSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    comfyui: tuple[ComfyUISettings, ...] = ()
    log: LogSettings = LogSettings()
    sessions: SessionSettings = SessionSettings()
    tenants: dict[Tenant, TenantSettings] = {}
    keys: tuple[KeySettings, ...] = ()
    jwt: dict[str, JwtSettings] = {}
    cloudflare_access: CloudflareAccessSettings | None = None
    policies: dict[str, PolicySettings] = Field(default_factory=lambda: {"default": PolicySettings()})
    limits: LimitsSettings = LimitsSettings()
    jobs: JobsSettings = JobsSettings()
    routes: tuple[RouteSettings, ...] = ()
    webhooks: tuple[WebhookSettings, ...] = ()
    storage: StorageSettings = StorageSettings()
    file: Path = Field(default=Path("config.toml"), exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _has_defaults(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("policies", {}), dict):
            # Nothing listed = nothing allowed: a tenant without a policy of its own gets the empty one.
            value = {**value, "policies": {"default": {}, **value.get("policies", {})}}
        return value

    @model_validator(mode="after")
    def _listeners_differ(self) -> Self:
        if self.server.port and self.server.port == self.ops.port and self.server.host == self.ops.host:
            raise ValueError("ops.port must differ from server.port: health and metrics are never tunnelled")
        return self

    @property
    def comfyuis(self) -> tuple[ComfyUISettings, ...]:
        """Those that jobs run on, the one of `[upstream]` where none is named. The first has the tenants' uploads, workflows and web UI."""
        return self.comfyui or _only(self.upstream.url, self.upstream.directory, self.upstream.warmup)

    def window_of(self, comfyui: ComfyUISettings) -> int:
        """How many jobs it has at once."""
        return self.jobs.window if comfyui.window is None else comfyui.window

    @property
    def audit_file(self) -> Path | None:
        """Where the audit trail is, absolute or as the configuration file's own path; None: there is none."""
        if "audit_file" not in self.log.model_fields_set:
            return self.resolve(self.server.state_dir) / AUDIT_FILE
        return self.resolve(self.log.audit_file) if self.log.audit_file is not None else None

    def resolve(self, path: Path) -> Path:
        """A path of the configuration, relative to the configuration file's folder."""
        return path if path.is_absolute() else self.file.parent / path


def load_config(file: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Reads and checks the file. Raises ConfigError with all mistakes, or when the file cannot be read."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(file, [Mistake("", None, f"cannot be read: {_reason_of(error)}")]) from None
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise ConfigError(file, [Mistake("", int(line[1]) if line else None, f"is not TOML: {error}")]) from None
    return check_config(document, file, text, os.environ if environ is None else environ)


def check_config(
    document: dict[str, Any], file: Path, text: str = "", environ: Mapping[str, str] | None = None
) -> Config:
    """Checks an already parsed document. Raises ConfigError with all mistakes."""
    lines = _lines_of(text)
    for variable, (section, name) in ENVIRONMENT.items():
        if environ and variable in environ:
            part = document.get(section, {})
            if isinstance(part, dict):  # else it is a mistake that the models report
                document = {**document, section: {**part, name: environ[variable]}}
    mistakes: list[Mistake] = []
    if "file" in document:
        mistakes.append(_mistake(lines, ("file",), "unknown key"))
    config: Config | None = None
    try:
        config = Config.model_validate({**document, "file": file})
    except ValidationError as error:
        mistakes += [_mistake(lines, _path_in_file(part["loc"], document), _words(part)) for part in error.errors()]
    mistakes += [_mistake(lines, path, message) for path, message in _cross_references(document)]
    if config is not None:
        config = _with_first(config)
        mistakes += [_mistake(lines, path, message) for path, message in _custom_routes(config)]
    if mistakes or config is None:
        raise ConfigError(file, mistakes)
    return config


def _with_first(config: Config) -> Config:
    """`[upstream]` says of the first ComfyUI where it is."""
    if not config.comfyui:
        return config
    first = config.comfyui[0]
    where = {"url": first.url, "directory": first.directory}
    return config.model_copy(update={"upstream": config.upstream.model_copy(update=where)})


def _cross_references(document: dict[str, Any]) -> list[tuple[KeyPath, str]]:
    """Names that must exist elsewhere in the file; works on the raw document, so that it reports beside other mistakes."""
    found: list[tuple[KeyPath, str]] = []
    tenants = _table(document, "tenants")
    policies = {"default", *_table(document, "policies")}
    limits = {"default", *(name for name, part in _table(document, "limits").items() if isinstance(part, dict))}
    for tenant, settings in tenants.items():
        for kind, known in (("policy", policies), ("limits", limits)):
            wanted = settings.get(kind, "default") if isinstance(settings, dict) else "default"
            if isinstance(wanted, str) and wanted not in known:
                section = "policies" if kind == "policy" else "limits"
                found.append((("tenants", tenant, kind), f"there is no [{section}.{wanted}]"))
    seen: set[str] = set()
    for index, key in _rows(document, "keys"):
        if isinstance(key.get("tenant"), str) and key["tenant"] not in tenants:
            found.append((("keys", index, "tenant"), f"there is no [tenants.{key['tenant']}]"))
        if isinstance(key.get("limits"), str) and key["limits"] not in limits:
            found.append((("keys", index, "limits"), f"there is no [limits.{key['limits']}]"))
        identifier = key.get("id")
        if isinstance(identifier, str):
            if identifier in seen:
                found.append((("keys", index, "id"), f"the id {identifier} is used twice"))
            seen.add(identifier)
    found += _of_webhooks(document, tenants)
    found += _of_comfyuis(document, tenants)
    found += _need_storage(document)
    found += _tenant_maps(document, tenants)
    found += _need_directory(document)
    return found


def _of_webhooks(document: dict[str, Any], tenants: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    found: list[tuple[KeyPath, str]] = []
    seen: set[str] = set()
    for index, webhook in _rows(document, "webhooks"):
        tenant, name = webhook.get("tenant"), webhook.get("name")
        if isinstance(tenant, str) and tenant not in tenants:
            found.append((("webhooks", index, "tenant"), f"there is no [tenants.{tenant}]"))
        if isinstance(name, str):
            if name in seen:
                found.append((("webhooks", index, "name"), f"the name {name} is used twice"))
            seen.add(name)
    return found


def _of_comfyuis(document: dict[str, Any], tenants: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    rows = _rows(document, "comfyui")
    words = "is given for each ComfyUI in [[comfyui]]: leave it out here"
    given, own = _table(document, "upstream"), ("url", "directory", "warmup")
    found: list[tuple[KeyPath, str]] = [(("upstream", name), words) for name in own if rows and name in given]
    seen: dict[str, set[str]] = {"name": set(), "url": set()}
    for index, row in rows:
        for name, values in seen.items():
            value = row.get(name, DEFAULT_URL if name == "url" else None)
            if isinstance(value, str) and value.rstrip("/") in values:
                found.append((("comfyui", index, name), f"two ComfyUIs have the {name} {value}"))
            elif isinstance(value, str) and value:
                values.add(value.rstrip("/"))
        named = row.get("tenants")
        found += [
            (("comfyui", index, "tenants"), f"there is no [tenants.{tenant}]")
            for tenant in (named if isinstance(named, list) else ())
            if isinstance(tenant, str) and tenant not in tenants
        ]
    return found


def _need_storage(document: dict[str, Any]) -> list[tuple[KeyPath, str]]:
    storage = document.get("storage")
    if isinstance(storage, dict) and storage.get("url"):
        return []
    found: list[tuple[KeyPath, str]] = []
    for index, webhook in _rows(document, "webhooks"):
        events = webhook.get("events")
        if isinstance(events, list) and any(event in OF_STORAGE for event in events):
            words = f"{' and '.join(OF_STORAGE)} never come without [storage] with a url"
            found.append((("webhooks", index, "events"), words))
    return found


def _rows(document: Mapping[str, Any], name: str) -> list[tuple[int, Mapping[str, Any]]]:
    """The tables of a list of tables, with their places."""
    rows = document.get(name)
    return [(index, row) for index, row in enumerate(rows if isinstance(rows, list) else []) if isinstance(row, dict)]


def _custom_routes(config: Config) -> list[tuple[KeyPath, str]]:
    """Packs that are not known, and rows that do not fit beside ComfyUI's own and the packs'."""
    packs, chosen = load_packs(), config.upstream.packs
    found: list[tuple[KeyPath, str]] = []
    for index, name in enumerate(chosen):
        if name not in packs:
            found.append((("upstream", "packs"), f"there is no pack {name!r}: there are {', '.join(packs)}"))
        elif name in chosen[:index]:
            found.append((("upstream", "packs"), f"the pack {name} is named twice"))
    conflicts = find_conflicts(config.routes, chosen, packs, ROUTES)
    return found + [(("routes", index, "path"), words) for index, words in conflicts]


def _need_directory(document: dict[str, Any]) -> list[tuple[KeyPath, str]]:
    """What the gate does to files it can do only where it sees them."""
    rows = [row for _, row in _rows(document, "comfyui")] or [_table(document, "upstream")]
    if all(row.get("directory") for row in rows):
        return []
    where = "directory of each ComfyUI" if len(rows) > 1 else "upstream.directory"
    return [
        (("limits", name, setting), f"needs {where}: without it the gate does not see the tenant's files")
        for name, part in _table(document, "limits").items()
        if isinstance(part, dict)
        for setting in ("storage", "retention")
        if part.get(setting) is not None
    ]


def _tenant_maps(document: dict[str, Any], tenants: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    access = _table(document, "cloudflare_access")
    maps: list[tuple[KeyPath, Any]] = [
        (("cloudflare_access", name), access.get(name))
        for name in ("emails", "email_domains", "groups", "service_tokens")
    ]
    maps += [
        (("jwt", name, "tenants"), issuer.get("tenants"))
        for name, issuer in _table(document, "jwt").items()
        if isinstance(issuer, dict)
    ]
    return [
        ((*path, who), f"there is no [tenants.{tenant}]")
        for path, mapping in maps
        if isinstance(mapping, dict)
        for who, tenant in mapping.items()
        if isinstance(tenant, str) and tenant not in tenants
    ]


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = document.get(name)
    return part if isinstance(part, dict) else {}


def _path_in_file(location: KeyPath, document: dict[str, Any]) -> KeyPath:
    """pydantic's path, without what is only in the models: the lifted `named` and the branches of unions."""
    path = list(location)
    if path[:2] == ["limits", "named"]:
        del path[1]
    kept: list[str | int] = []
    here: Any = document
    for part in path:
        inner = here.get(part) if isinstance(here, dict) else None
        if isinstance(here, list) and isinstance(part, int):
            inner = here[part]
        is_branch = isinstance(part, str) and part.startswith(("function-", "tuple[", "str", "[key]"))
        if inner is None and is_branch:
            continue
        kept.append(part)
        here = inner
    return tuple(kept)


def _words(part: Any) -> str:
    if part["type"] == "extra_forbidden":
        return "unknown key"
    if part["type"] == "missing":
        return "is missing"
    message = str(part["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _mistake(lines: Mapping[KeyPath, int], path: KeyPath, message: str) -> Mistake:
    written = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    line = next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)
    return Mistake(written, line, message)


def _lines_of(text: str) -> dict[KeyPath, int]:
    """The line on which each table and key begins. tomllib does not tell; a scan by line is enough to find the place."""
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.fullmatch(line)
        if header:
            table = _split_key(header[2])
            lines.setdefault(table, number)
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            lines.setdefault(table, number)
            continue
        assignment = _ASSIGNMENT.match(line)
        if assignment:
            key = _split_key(assignment[1])
            for end in range(1, len(key) + 1):
                lines.setdefault((*table, *key[:end]), number)
    return lines


def _split_key(text: str) -> KeyPath:
    """A dotted TOML key as its parts, read by the TOML parser itself."""
    try:
        part: Any = tomllib.loads(f"{text.strip()} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str | int] = []
    while isinstance(part, dict):
        key, part = next(iter(part.items()))
        path.append(key)
    return tuple(path)


def _reason_of(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"
