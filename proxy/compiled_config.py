"""Makes one configuration ready: keys, sessions, token issuers, policies. Every mistake in them is reported as one of the file's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from policy.judge import Policy, compile_policy
from policy.principal import TenantId
from policy.settings import PolicySettings
from proxy.auth.api_keys import ApiKeyStore
from proxy.auth.authenticator import Authenticator
from proxy.auth.cloudflare_access import CloudflareAccess
from proxy.auth.csrf_cors import CsrfCors
from proxy.auth.jwt_issuers import JwtIssuers
from proxy.auth.session_secret import SessionStateError
from proxy.auth.sessions import open_sessions
from proxy.config import Config, ConfigError, Mistake
from proxy.config.presets import load_presets
from proxy.dependencies import CompiledConfig
from proxy.http.client_address import ClientAddresses
from proxy.http.request_body import WHOLE_JSON_S, BodyLimits
from proxy.persistence.database import StateDatabase


def compile_config(
    config: Config, previous: CompiledConfig | None = None, state: StateDatabase | None = None
) -> CompiledConfig:
    """Raises ConfigError with all mistakes. previous: what this one replaces; fetched keys of token issuers are taken over. state: of `open_sessions`."""
    mistakes: list[Mistake] = []
    policies = _compile(config, mistakes)
    tokens, access = _verifiers(config, previous, mistakes)
    try:
        state_dir = config.resolve(config.server.state_dir)
        secret_file = config.sessions.secret_file
        resolved = config.sessions.model_copy(
            update={"secret_file": config.resolve(secret_file) if secret_file is not None else None}
        )
        sessions = open_sessions(
            resolved,
            config.server.public_url,
            state_dir,
            public_path=config.server.public_path,
            state=state,
            previous=previous.authenticator.sessions if previous is not None else None,
        )
    except SessionStateError as error:
        raise ConfigError(config.file, [*mistakes, Mistake("sessions", None, str(error))]) from None
    if mistakes:
        raise ConfigError(config.file, mistakes)
    server = config.server
    return CompiledConfig(
        config=config,
        authenticator=Authenticator(ApiKeyStore(config.keys), sessions, tokens, access),
        tokens=tokens,
        access=access,
        origins=CsrfCors(server.public_url, server.cors_origins),
        addresses=ClientAddresses(server.trusted_proxies),
        policies=MappingProxyType({TenantId(name): policies[tenant.policy] for name, tenant in config.tenants.items()}),
        json_limits=BodyLimits(
            server.max_prompt_bytes, server.body_timeout, server.min_body_bytes_per_second, WHOLE_JSON_S
        ),
        upload_limits=BodyLimits(server.max_upload_bytes, server.body_timeout, server.min_body_bytes_per_second),
    )


def compile_policies(config: Config) -> Mapping[str, Policy]:
    """The policies by name. Raises ConfigError with all mistakes."""
    mistakes: list[Mistake] = []
    policies = _compile(config, mistakes)
    if mistakes:
        raise ConfigError(config.file, mistakes)
    return policies


def _compile(config: Config, mistakes: list[Mistake]) -> Mapping[str, Policy]:
    presets = load_presets()
    pinned = _pinned_documents(config, mistakes)
    policies: dict[str, Policy] = {}
    for name in config.policies:
        try:
            policies[name] = compile_policy(name, config.policies, presets, pinned)
        except ValueError as error:
            mistakes.append(Mistake(f"policies.{name}", None, str(error)))
    return policies


def _pinned_documents(config: Config, mistakes: list[Mistake]) -> Mapping[str, Any]:
    """The workflow files that policies pin, by the name the configuration gives them."""
    documents: dict[str, Any] = {}
    for name, policy in config.policies.items():
        for pinned in _workflows(policy):
            try:
                documents[pinned] = orjson.loads(config.resolve(Path(pinned)).read_bytes())
            except (OSError, orjson.JSONDecodeError) as error:
                mistakes.append(Mistake(f"policies.{name}.workflows", None, f"{pinned} cannot be read: {error}"))
    return documents


def _workflows(policy: PolicySettings) -> list[str]:
    return [pinned.file for pinned in policy.workflows]


def _verifiers(
    config: Config, previous: CompiledConfig | None, mistakes: list[Mistake]
) -> tuple[JwtIssuers | None, CloudflareAccess | None]:
    tenants = frozenset(config.tenants)
    tokens: JwtIssuers | None = None
    access: CloudflareAccess | None = None
    try:
        if config.jwt:
            tokens = JwtIssuers(
                config.jwt,
                known_tenants=tenants,
                resolve=config.resolve,
                previous=previous.tokens if previous else None,
            )
    except ValueError as error:
        mistakes += [Mistake("", None, line) for line in str(error).splitlines()]
    try:
        if config.cloudflare_access is not None:
            access = CloudflareAccess(
                config.cloudflare_access, known_tenants=tenants, previous=previous.access if previous else None
            )
    except ValueError as error:
        mistakes += [Mistake("", None, line) for line in str(error).splitlines()]
    return tokens, access
