"""What lives longer than a request, and what one reading of the configuration says: the pipeline's only two arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from aiohttp import web

from policy.call import ClientReply
from policy.judge import ADMIN_POLICY, Policy
from policy.namespace import Namespace
from policy.principal import Principal, TenantId
from policy.routes import Budget, CachedReply, Route
from policy.rule_context import RuleContext, RuleInput
from proxy.auth.authenticator import Authenticator
from proxy.auth.cloudflare_access import CloudflareAccess
from proxy.auth.csrf_cors import CsrfCors
from proxy.auth.jwt_issuers import JwtIssuers
from proxy.auth.login_throttle import LoginThrottle
from proxy.config import Config
from proxy.files.listing import FileListing
from proxy.files.quota import StorageQuota
from proxy.files.upload_names import UploadNames
from proxy.http.body_memory import BodyRoom
from proxy.http.client_address import ClientAddresses
from proxy.http.errors import CredentialEnded
from proxy.http.request_body import BodyLimits
from proxy.http.request_record import RequestRecord
from proxy.jobs.admission_protocol import JobAdmissions
from proxy.jobs.kept_documents import KeptJobs
from proxy.jobs.queue_watcher import QueueWatcher
from proxy.jobs.registry import JobRegistry
from proxy.keyed_semaphore import KeyedSemaphore
from proxy.limits.effective_limits import LimitStatus
from proxy.limits.heavy_work import HeavyWork
from proxy.limits.underway import UnderWay
from proxy.observability.access_log import Recorder
from proxy.upstream.client import Upstream
from proxy.upstream.document_cache import DocumentCache
from proxy.upstream.node_catalogue import CatalogueSource
from proxy.upstream.preview_queue import PreviewQueue
from proxy.websocket.connections import ConnectionRegistry


class Limiter(Protocol):
    """Rates. Both raise LimitExceeded."""

    async def acquire(self, principal: Principal, budget: Budget) -> list[tuple[str, str]]:
        """Spends one call; returns the header fields that tell what is left."""
        ...

    async def spend_bytes(self, principal: Principal, amount: int) -> None: ...

    async def remaining(self, principal: Principal) -> list[LimitStatus]: ...

    async def gpu_budget(self, principal: Principal) -> LimitStatus | None: ...


class Pages(Protocol):
    """The gate's own paths, under /gate/."""

    def has(self, segments: tuple[str, ...]) -> bool: ...

    def shortcut(self, request: web.BaseRequest, record: RequestRecord) -> ClientReply | None: ...

    async def serve(
        self,
        request: web.BaseRequest,
        record: RequestRecord,
        segments: tuple[str, ...],
        query: tuple[tuple[str, str], ...],
    ) -> web.StreamResponse: ...

    def before_web_ui(
        self, request: web.BaseRequest, record: RequestRecord, principal: Principal
    ) -> ClientReply | None: ...


class Streams(Protocol):
    async def serve(
        self, request: web.BaseRequest, record: RequestRecord, incoming: RuleInput
    ) -> web.StreamResponse: ...


@dataclass(frozen=True, slots=True)
class CompiledConfig:
    """One configuration, made ready. Replaced as a whole, so that no request sees half of two."""

    config: Config
    authenticator: Authenticator
    tokens: JwtIssuers | None
    access: CloudflareAccess | None
    origins: CsrfCors
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
            return ADMIN_POLICY
        policy = self.policies.get(principal.tenant)
        if policy is None:
            raise CredentialEnded
        return policy


@dataclass(slots=True)
class Dependencies:
    compiled: CompiledConfig
    upstream: Upstream
    login_throttle: LoginThrottle
    pages: Pages
    registry: JobRegistry
    queue_watcher: QueueWatcher
    catalogue: CatalogueSource
    document_cache: DocumentCache
    exclusive_runs: KeyedSemaphore
    files: FileListing
    storage: StorageQuota
    admission: JobAdmissions
    limiter: Limiter
    sockets: ConnectionRegistry
    streams: Streams
    recorder: Recorder
    under_way: UnderWay
    kept: KeptJobs
    pictures: PreviewQueue = field(default_factory=PreviewQueue)
    bodies: BodyRoom = field(default_factory=BodyRoom)
    heavy: HeavyWork = field(default_factory=HeavyWork)
    upload_names: UploadNames = field(default_factory=UploadNames)

    async def context(self, principal: Principal, route: Route) -> RuleContext:
        """Everything a rule may know. Rows that judge classes wait for a catalogue, rows that show it for a fresh one, others take what there is."""
        snapshot = self.catalogue.snapshot
        if isinstance(route.rule_for(principal), CachedReply):
            snapshot = await self.catalogue.fresh()
        elif route.needs_catalogue:
            snapshot = await self.catalogue.known()
        return RuleContext(
            principal=principal,
            names=Namespace(principal.tenant),
            jobs=self.registry.of(principal.tenant),
            policy=self.compiled.policy_of(principal),
            catalogue=snapshot.catalogue,
            now=datetime.now(),
            files=await self.files.listing(principal.tenant) if route.needs_files else self.files.unknown,
            shared_inputs=self.compiled.config.upstream.shared_inputs,
            upload_types=frozenset(self.compiled.config.upstream.upload_types),
            max_picture_pixels=self.compiled.config.server.max_picture_pixels,
            has_account_menu=self.compiled.config.server.account_menu,
            documents=self.kept.of(principal.tenant),
        )
