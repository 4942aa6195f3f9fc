"""Settings that say who may come in: tenants, API keys, token issuers, Cloudflare Access, browser sessions."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from policy.addresses import parse_host_pattern
from policy.principal import ALL_SCOPES, Role, Scope, TenantId, parse_tenant
from policy.sizes import Size
from proxy.config.units import Duration, Settings

Tenant = Annotated[str, AfterValidator(parse_tenant)]
Host = Annotated[str, AfterValidator(lambda text: str(parse_host_pattern(text)))]
Algorithm = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
    "HS256",
    "HS384",
    "HS512",
]
_KEY_ID = re.compile(r"[0-9a-f]{8,32}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def is_safe_url(url: str) -> bool:
    """Whether what is fetched there cannot be changed on its way: https, or this machine."""
    parts = urlsplit(url)
    is_local = parts.hostname in ("127.0.0.1", "::1", "localhost")
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_local))


class TenantSettings(Settings):
    """functions: those that it may call, "*" for all. workflows: "functions" for a tenant that sends no workflows of its own. fetch: hosts outside from
    which the files of its calls may be fetched. call_webhooks: hosts outside that a call may name to be told of its job; signed with the secrets in the files.
    """

    policy: str = "default"
    limits: str = "default"
    functions: tuple[str, ...] = ()
    workflows: Literal["any", "functions"] = "any"
    fetch: tuple[Host, ...] = ()
    call_webhooks: tuple[Host, ...] = ()
    call_webhooks_secret_file: Path | None = None
    call_webhooks_previous_secret_file: Path | None = None

    @model_validator(mode="after")
    def _signs_what_it_tells(self) -> Self:
        if self.call_webhooks and self.call_webhooks_secret_file is None:
            raise ValueError(
                "call_webhooks needs call_webhooks_secret_file: make one with `comfygate webhooks secret`, and give it to the receivers"
            )
        return self


def as_utc(value: Any) -> Any:
    """A TOML date-time without an offset is taken as UTC, so that it means the same on every machine."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    raise ValueError("write a date and time such as 2027-01-01T00:00:00Z, without quotes")


class KeySettings(Settings):
    """An API key, by the SHA-256 of its text; the text itself is nowhere."""

    id: str
    hash: str
    tenant: Tenant
    role: Role = Role.USER
    scopes: frozenset[Scope] = ALL_SCOPES
    expires: Annotated[datetime, BeforeValidator(as_utc)] | None = None
    limits: str | None = None
    note: str = ""

    @field_validator("id")
    @classmethod
    def _is_key_id(cls, text: str) -> str:
        if not _KEY_ID.fullmatch(text):
            raise ValueError("a key id has 8 to 32 of 0-9a-f; make keys with `comfygate keys create`")
        return text

    @field_validator("hash")
    @classmethod
    def _is_hash(cls, text: str) -> str:
        if not _HASH.fullmatch(text):
            raise ValueError('write "sha256:" and 64 of 0-9a-f; make keys with `comfygate keys create`')
        return text


class JwtSettings(Settings):
    """One token issuer. Exactly one of jwks_url, public_key_file and secret_file says how signatures are verified."""

    issuer: Annotated[str, Field(min_length=1)]
    audience: tuple[str, ...] | str
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
    jwks_url: str | None = None
    public_key_file: Path | None = None
    secret_file: Path | None = None
    tenant_claim: str = "tenant"
    tenants: dict[str, Tenant] = {}
    role_claim: str | None = None
    roles: dict[str, Role] = {}
    scope_claim: str | None = None
    required_claims: tuple[str, ...] = ("exp", "sub")
    leeway: Annotated[Duration, Field(le=300)] = 30.0
    jwks_timeout: Annotated[Duration, Field(gt=0)] = 5.0
    jwks_lifetime: Annotated[Duration, Field(gt=0)] = 3600.0

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        sources = [self.jwks_url, self.public_key_file, self.secret_file]
        if sum(source is not None for source in sources) != 1:
            raise ValueError("give exactly one of jwks_url, public_key_file and secret_file")
        symmetric = {name for name in self.algorithms if name.startswith("HS")}
        if not self.algorithms:
            raise ValueError("algorithms must name at least one")
        if self.secret_file is not None and symmetric != set(self.algorithms):
            raise ValueError('with secret_file, algorithms must be "HS256", "HS384" or "HS512"')
        if self.secret_file is None and symmetric:
            # SECURITY: a public key taken as an HMAC secret lets anybody sign.
            raise ValueError("HS algorithms go with secret_file only")
        if not self.audience:
            raise ValueError("audience must not be empty")
        return self

    @field_validator("jwks_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None and not is_safe_url(url):
            raise ValueError("jwks_url must be https (http only for this machine)")
        return url


class CloudflareAccessSettings(Settings):
    """Cloudflare Access: whose assertion is believed, and which tenant a person or a service token is."""

    team_domain: str
    audience: tuple[str, ...] | str
    emails: dict[str, Tenant] = {}
    email_domains: dict[str, Tenant] = {}
    groups: dict[str, Tenant] = {}
    service_tokens: dict[str, Tenant] = {}
    admins: tuple[str, ...] = ()
    certs_url: str | None = None
    leeway: Annotated[Duration, Field(le=300)] = 30.0

    @field_validator("team_domain")
    @classmethod
    def _is_host(cls, text: str) -> str:
        host = text.removeprefix("https://").rstrip("/").lower()
        if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host):
            raise ValueError('write the team domain as "team.cloudflareaccess.com"')
        return host


class SessionSettings(Settings):
    """Browser sessions. The signing secret comes from secret_file, or is made once in state_dir."""

    lifetime: Annotated[Duration, Field(gt=0)] = 7 * 86400.0
    max_lifetime: Annotated[Duration, Field(gt=0)] = 30 * 86400.0
    secret_file: Path | None = None
    max_form_bytes: Size = 4096


def tenant_of(key: KeySettings) -> TenantId:
    return TenantId(key.tenant)
