"""What lives longer than a request, and what one reading of the configuration says: the pipeline's only two arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from aiohttp import web

from policy.call import ClientReply
from policy.judge import OPEN, Policy
from policy.namespace import Namespace
from policy.principal import Principal, TenantId
from policy.routes import Budget, Describes, Route
from policy.rule_context import Caller, Request
from proxy.auth.authenticator import Authenticator
from proxy.auth.cloudflare_access import CloudflareAccess
from proxy.auth.csrf_cors import OriginRules
from proxy.auth.jwt_issuers import Tokens
from proxy.auth.login_throttle import Gatekeeper
from proxy.config import Config
from proxy.files.listing import TenantFiles
from proxy.files.quota import Storage
from proxy.http.body_memory import BodyRoom
from proxy.http.client_address import ClientAddresses
from proxy.http.errors import CredentialEnded
from proxy.http.request_body import BodyLimits
from proxy.http.request_record import Exchange
from proxy.jobs.admission_protocol import JobDesk
from proxy.jobs.kept_documents import KeptJobs
from proxy.jobs.queue_watcher import Observer
from proxy.jobs.registry import Ledger
from proxy.keyed_semaphore import Turns
from proxy.limits.effective_limits import Allowance
from proxy.limits.heavy_work import HeavyWork
from proxy.limits.underway import UnderWay
from proxy.observability.access_log import Recorder
from proxy.upstream.client import Upstream
from proxy.upstream.document_cache import Shelf
from proxy.upstream.node_catalogue import CatalogueSource
from proxy.upstream.preview_queue import PictureLane
from proxy.websocket.connections import Sockets


class Limiter(Protocol):
    """Rates. Both raise LimitExceeded."""

    async def acquire(self, principal: Principal, budget: Budget) -> list[tuple[str, str]]:
        """Spends one call; returns the header fields that tell what is left."""
        ...

    async def spend_bytes(self, principal: Principal, amount: int) -> None: ...

    async def remaining(self, principal: Principal) -> list[Allowance]: ...

    async def gpu_budget(self, principal: Principal) -> Allowance | None: ...


class Pages(Protocol):
    """The gate's own paths, under /gate/."""

    def has(self, segments: tuple[str, ...]) -> bool: ...

    def shortcut(self, request: web.BaseRequest, exchange: Exchange) -> ClientReply | None: ...

    async def serve(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        segments: tuple[str, ...],
        query: tuple[tuple[str, str], ...],
    ) -> web.StreamResponse: ...

    def before_web_ui(
        self, request: web.BaseRequest, exchange: Exchange, principal: Principal
    ) -> ClientReply | None: ...


class Streams(Protocol):
    async def serve(self, request: web.BaseRequest, exchange: Exchange, incoming: Request) -> web.StreamResponse: ...


@dataclass(frozen=True, slots=True)
class Rulebook:
    """One configuration, made ready. Replaced as a whole, so that no request sees half of two."""

    config: Config
    authenticator: Authenticator
    tokens: Tokens | None
    access: CloudflareAccess | None
    origins: OriginRules
    addresses: ClientAddresses
    policies: Mapping[TenantId, Policy]
    json_limits: BodyLimits
    upload_limits: BodyLimits

    def client_address(self, request: web.BaseRequest) -> str:
        """Whose address the client's is: the peer's, or what a trusted proxy says of it."""
        return self.addresses.of(request.remote, request.headers)

    def policy_of(self, principal: Principal) -> Policy:
        """An admin sees ComfyUI as it is. Raises CredentialEnded for a tenant that was taken out while its request waited."""
        if principal.is_admin:
            return OPEN
        policy = self.policies.get(principal.tenant)
        if policy is None:
            raise CredentialEnded
        return policy


@dataclass(slots=True)
class Services:
    rulebook: Rulebook
    upstream: Upstream
    gatekeeper: Gatekeeper
    pages: Pages
    ledger: Ledger
    observer: Observer
    catalogue: CatalogueSource
    shelf: Shelf
    turns: Turns
    files: TenantFiles
    storage: Storage
    desk: JobDesk
    limiter: Limiter
    sockets: Sockets
    streams: Streams
    recorder: Recorder
    under_way: UnderWay
    kept: KeptJobs
    pictures: PictureLane = field(default_factory=PictureLane)
    bodies: BodyRoom = field(default_factory=BodyRoom)
    heavy: HeavyWork = field(default_factory=HeavyWork)

    async def caller(self, principal: Principal, route: Route) -> Caller:
        """Everything a rule may know. Rows that judge classes wait for a catalogue, rows that show it for a fresh one, others take what there is."""
        snapshot = self.catalogue.snapshot
        if isinstance(route.rule_for(principal), Describes):
            snapshot = await self.catalogue.fresh()
        elif route.needs_catalogue:
            snapshot = await self.catalogue.known()
        return Caller(
            principal=principal,
            names=Namespace(principal.tenant),
            jobs=self.ledger.of(principal.tenant),
            policy=self.rulebook.policy_of(principal),
            catalogue=snapshot.catalogue,
            now=datetime.now(),
            files=await self.files.listing(principal.tenant) if route.needs_files else self.files.unknown,
            shared_inputs=self.rulebook.config.upstream.shared_inputs,
            upload_types=frozenset(self.rulebook.config.upstream.upload_types),
            max_picture_pixels=self.rulebook.config.server.max_picture_pixels,
            has_account_menu=self.rulebook.config.server.account_menu,
            documents=self.kept.of(principal.tenant),
        )
