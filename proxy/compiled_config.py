"""Makes one configuration ready: keys, sessions, token issuers, policies. Every mistake in them is reported as one of the file's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from policy.addresses import HostPattern, parse_host_pattern
from policy.compiled_policy import ADMIN_POLICY, Policy, compile_policy
from policy.functions.function import CallableFunction, Function
from policy.namespace import Namespace
from policy.principal import Principal, TenantId
from policy.route_kinds import make_routes
from policy.routes import RouteTable
from policy.rule_context import RuleContext
from policy.settings import PolicySettings
from policy.table import ROUTES, TABLE
from policy.v2.links import Links
from proxy.auth.api_keys import ApiKeyStore
from proxy.auth.authenticator import Authenticator
from proxy.auth.csrf_cors import CsrfCors
from proxy.auth.session_secret import SessionStateError
from proxy.auth.sessions import Sessions, open_sessions
from proxy.config import Config, ConfigError, Mistake
from proxy.config.functions import FOLDER, read_functions
from proxy.config.limits import LimitSettings
from proxy.config.packs import load_packs
from proxy.config.presets import load_presets
from proxy.config.warmups import find_bad_warmups
from proxy.conversion.pool import can_convert
from proxy.copies.opening import find_mistakes
from proxy.http.client_address import ClientAddresses
from proxy.http.errors import CredentialEnded
from proxy.http.origin import origin_of
from proxy.http.request import Request
from proxy.http.request_body import WHOLE_JSON_S, BodyLimits
from proxy.persistence.operations import Database
from proxy.webhooks.endpoint import CallWebhooks, Endpoint, make_call_webhooks, make_endpoints

if TYPE_CHECKING:
    from proxy.auth.cloudflare_access import CloudflareAccess
    from proxy.auth.jwt_issuers import JwtIssuers


@dataclass(frozen=True, slots=True)
class TenantAccess:
    """What a tenant's credentials of one role may reach: worked out once per configuration, not per request."""

    namespace: Namespace
    policy: Policy
    limits: LimitSettings
    functions: Mapping[str, CallableFunction]
    takes_workflows: bool
    fetches: tuple[HostPattern, ...] = ()
    webhooks: tuple[HostPattern, ...] = ()


_LINKS: Final = "links"
_CLIENT: Final = "client address"
"""Of Request.of_head."""


@dataclass(frozen=True, slots=True)
class CompiledConfig:
    """One configuration, made ready. A request takes it once, at its beginning, and asks no other; a reload replaces it as a whole."""

    config: Config
    table: RouteTable
    id_inputs: Mapping[str, frozenset[str]]
    authenticator: Authenticator
    tokens: JwtIssuers | None
    access: CloudflareAccess | None
    origins: CsrfCors
    addresses: ClientAddresses
    policies: Mapping[TenantId, Policy]
    named_policies: Mapping[str, Policy]
    json_limits: BodyLimits
    upload_limits: BodyLimits
    upload_types: frozenset[str]
    window: int
    """How many jobs the first ComfyUI has at once."""
    public_path: str
    """`server`'s, for each request: from a pydantic model it takes longer."""
    functions: Mapping[str, Function] = field(default_factory=dict)
    webhooks: tuple[Endpoint, ...] = ()
    call_webhooks: tuple[CallWebhooks, ...] = ()
    contexts: dict[tuple[TenantId, bool], RuleContext] = field(default_factory=dict, repr=False)
    """What rules may know, by tenant and whether an admin asks, but for what is each request's own: see proxy/steps/rule_input.py."""
    _access: dict[tuple[TenantId, bool], TenantAccess] = field(default_factory=dict, repr=False)

    @property
    def tenants(self) -> Iterable[TenantId]:
        return self.policies

    def client_address(self, request: Request) -> str:
        """Whose address the client's is: the peer's, or what a trusted proxy says of it."""
        known: tuple[ClientAddresses, str] | None = request.of_head.get(_CLIENT)
        if known is None or known[0] is not self.addresses:
            known = request.of_head[_CLIENT] = (self.addresses, self.addresses.of(request.remote, request.headers))
        return known[1]

    def links_for(self, request: Request) -> Links:
        """Where this client finds what an answer names: server.public_url where it is set, else by what the request says of itself."""
        known: tuple[CompiledConfig, Links] | None = request.of_head.get(_LINKS)
        if known is None or known[0] is not self:
            server = self.config.server
            origin = server.public_url or origin_of(request, self.addresses.believes(request.remote))
            known = request.of_head[_LINKS] = (self, Links(origin, server.public_path))
        return known[1]

    @property
    def links_outside(self) -> Links:
        """For who is told without having asked: absolute where server.public_url says how."""
        server = self.config.server
        return Links(server.public_url or "", server.public_path)

    def access_of(self, principal: Principal) -> TenantAccess:
        """An admin sees ComfyUI as it is. Raises CredentialEnded for a tenant that this configuration does not have."""
        key = (principal.tenant, principal.is_admin)
        access = self._access.get(key)
        if access is None:
            policy = self.policies.get(principal.tenant)
            if policy is None:
                raise CredentialEnded
            policy = ADMIN_POLICY if principal.is_admin else policy
            settings = self.config.tenants[principal.tenant]
            access = TenantAccess(
                Namespace(principal.tenant),
                policy,
                self.limits_of(principal.tenant),
                {} if principal.is_admin else self.callable_by(principal.tenant),  # what an admin runs is ComfyUI's
                principal.is_admin or settings.workflows == "any",
                tuple(map(parse_host_pattern, settings.fetch)),
                tuple(map(parse_host_pattern, settings.call_webhooks)),
            )
            self._access[key] = access
        return access

    def callable_by(self, tenant: TenantId) -> Mapping[str, CallableFunction]:
        settings = self.config.tenants[tenant]
        names = self.functions if "*" in settings.functions else settings.functions
        own = self.policies[tenant]
        return {
            name: CallableFunction(
                function, own if function.settings.policy is None else self.named_policies[function.settings.policy]
            )
            for name in names
            if (function := self.functions.get(name)) is not None
        }

    def limits_of(self, tenant: TenantId) -> LimitSettings:
        """The default ones for a tenant that was taken out while something of it is under way."""
        settings = self.config.tenants.get(tenant)
        return self.config.limits.named[settings.limits if settings is not None else "default"]


def compile_config(
    config: Config, previous: CompiledConfig | None = None, state: Database | None = None
) -> CompiledConfig:
    """Raises ConfigError with all mistakes. previous: what this one replaces; fetched keys of token issuers are taken over. state: of `open_sessions`."""
    mistakes: list[Mistake] = []
    policies = _compile(config, mistakes)
    functions, webhooks = _functions(config, mistakes), make_endpoints(config, mistakes)
    mistakes += find_bad_warmups(config, functions)
    call_webhooks = make_call_webhooks(config, mistakes)
    mistakes += find_mistakes(config)
    tokens, access = _verifiers(config, previous, mistakes)
    try:
        sessions = _open_sessions(config, previous, state)
    except SessionStateError as error:
        raise ConfigError(config.file, [*mistakes, Mistake("sessions", None, str(error))]) from None
    if mistakes:
        raise ConfigError(config.file, mistakes)
    server = config.server
    return CompiledConfig(
        config=config,
        table=build_table(config),
        id_inputs=_id_inputs(config),
        authenticator=Authenticator(ApiKeyStore(config.keys), sessions, tokens, access),
        tokens=tokens,
        access=access,
        origins=CsrfCors(server.public_url, server.cors_origins),
        addresses=ClientAddresses(server.trusted_proxies),
        policies=MappingProxyType({TenantId(name): policies[tenant.policy] for name, tenant in config.tenants.items()}),
        named_policies=policies,
        functions=functions,
        webhooks=webhooks,
        call_webhooks=call_webhooks,
        json_limits=BodyLimits(
            server.max_prompt_bytes, server.body_timeout, server.min_body_bytes_per_second, WHOLE_JSON_S
        ),
        upload_limits=BodyLimits(server.max_upload_bytes, server.body_timeout, server.min_body_bytes_per_second),
        upload_types=frozenset(config.upstream.upload_types),
        window=config.window_of(config.comfyuis[0]),
        public_path=server.public_path,
    )


def _open_sessions(config: Config, previous: CompiledConfig | None, state: Database | None) -> Sessions:
    """Raises SessionStateError."""
    secret_file = config.sessions.secret_file
    resolved = config.sessions.model_copy(
        update={"secret_file": config.resolve(secret_file) if secret_file is not None else None}
    )
    return open_sessions(
        resolved,
        config.server.public_url,
        config.resolve(config.server.state_dir),
        public_path=config.server.public_path,
        state=state,
        previous=previous.authenticator.sessions if previous is not None else None,
    )


def build_table(config: Config) -> RouteTable:
    """ComfyUI's own routes, those of the packs that are named, and single ones."""
    rows = list(ROUTES)
    for name in config.upstream.packs:
        rows += [route for row in load_packs()[name].routes for route in make_routes(row, f"pack {name}")]
    for index, row in enumerate(config.routes):
        rows += make_routes(row, f"routes[{index}]")
    return RouteTable(tuple(rows)) if len(rows) > len(ROUTES) else TABLE


def _id_inputs(config: Config) -> Mapping[str, frozenset[str]]:
    """Inputs that name bytes under an id, by class.

    SECURITY: of the packs that are not named too: their nodes may be permitted, and read what others put there by other ways
    (tests/proxy/config/test_routes.py).
    """
    rows = [*config.routes, *(row for pack in load_packs().values() for row in pack.routes)]
    names = [name.rpartition(".") for row in rows for name in row.inputs]
    return MappingProxyType(
        {class_name: frozenset(name for of, _, name in names if of == class_name) for class_name, _, _ in names}
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
    pinned = read_pinned(config, mistakes)
    policies: dict[str, Policy] = {}
    for name in config.policies:
        try:
            policies[name] = compile_policy(name, config.policies, presets, pinned)
        except ValueError as error:
            path = f"policies.{name}"
            mistakes.append(Mistake(path, None, str(error).removeprefix(f"{path}: ")))
    return policies


def _functions(config: Config, mistakes: list[Mistake]) -> Mapping[str, Function]:
    """Those in the folder beside the configuration file; a tenant and a function name nothing that is not there."""
    functions, found = read_functions(config.file.parent / FOLDER)
    mistakes += [Mistake(file, None, words) for file, words in found]
    broken = {Path(file).stem for file, _ in found}
    for tenant, settings in config.tenants.items():
        mistakes += [
            Mistake(f"tenants.{tenant}.functions", None, f"there is no {FOLDER}/{name}.toml")
            for name in settings.functions
            if name != "*" and name not in functions and name not in broken
        ]
    for name, function in functions.items():
        if function.settings.policy is not None and function.settings.policy not in config.policies:
            words = f"policy: there is no [policies.{function.settings.policy}]"
            mistakes.append(Mistake(f"{FOLDER}/{name}.toml", None, words))
        for label in function.settings.labels if config.comfyui else ():
            if not any(label in each.labels for each in config.comfyui):
                mistakes.append(Mistake(f"{FOLDER}/{name}.toml", None, f"labels: no [[comfyui]] has the label {label}"))
        if function.formats and not can_convert():
            words = "convert: outputs are converted with Pillow, which is not installed: install comfygate[convert]"
            mistakes.append(Mistake(f"{FOLDER}/{name}.toml", None, words))
    return functions


def read_pinned(config: Config, mistakes: list[Mistake]) -> Mapping[str, Any]:
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
            from proxy.auth.jwt_issuers import JwtIssuers  # cryptography takes nine megabytes

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
            from proxy.auth.cloudflare_access import CloudflareAccess

            access = CloudflareAccess(
                config.cloudflare_access, known_tenants=tenants, previous=previous.access if previous else None
            )
    except ValueError as error:
        mistakes += [Mistake("", None, line) for line in str(error).splitlines()]
    return tokens, access
