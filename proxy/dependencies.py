"""What lives longer than a request and than a configuration: made once in app.py, and given to whatever needs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policy.templates.recurring import RecurringWorkflows
from proxy.auth.login_throttle import LoginThrottle
from proxy.compiled_config import CompiledConfig
from proxy.conversion.conversions import Conversions
from proxy.files.listing import FileListing
from proxy.files.quota import StorageQuota
from proxy.files.tenant_files import TenantFiles
from proxy.files.transfers import Transfers
from proxy.files.upload_names import UploadNames
from proxy.http.body_memory import BodyRoom
from proxy.jobs.admission import JobAdmission
from proxy.jobs.idempotency import IdempotentSubmissions
from proxy.jobs.kept_documents import KeptDocuments
from proxy.jobs.parts import JobParts
from proxy.jobs.queue_watchers import QueueWatchers
from proxy.jobs.registry import JobRegistry
from proxy.limits.heavy_work import HeavyWork
from proxy.limits.held_bytes import HeldBytes
from proxy.limits.keyed_semaphore import KeyedSemaphore
from proxy.limits.limits import Limits
from proxy.limits.underway import UnderWay
from proxy.observability.access_log import Recorder
from proxy.outside.fetches import Fetches
from proxy.pages.routes import GatePages
from proxy.pages.tenant_docs import TenantDocs
from proxy.upstream.client import Upstream
from proxy.upstream.compressor import Compressor
from proxy.upstream.document_cache import DocumentCache
from proxy.upstream.merged_catalogue import MergedCatalogue
from proxy.upstream.node_catalogue import CatalogueSource
from proxy.upstream.preview_queue import PreviewQueue
from proxy.upstream.web_files import WebFiles
from proxy.v2.parts import V2Parts
from proxy.websocket.client_sockets import ClientSockets
from proxy.websocket.connections import ConnectionRegistry
from proxy.websocket.event_sessions import EventSessions

if TYPE_CHECKING:
    from proxy.copies.reader import CopyReader

LARGE_AT_ONCE = 2
"""Of one tenant: answers that are made of whole workflows."""
HEAVY_AT_ONCE = 2
"""Of one tenant: answers that another program makes while they are sent."""


@dataclass(slots=True)
class Dependencies:
    """compiled: the configuration in force, which a reload replaces. A request reads it once, at its beginning. copies: None where nothing is copied.
    transfers: None where there is one ComfyUI.
    """

    compiled: CompiledConfig
    upstream: Upstream
    login_throttle: LoginThrottle
    pages: GatePages
    registry: JobRegistry
    queue_watchers: QueueWatchers
    admission: JobAdmission
    jobs: JobParts
    idempotency: IdempotentSubmissions
    kept: KeptDocuments
    catalogue: CatalogueSource | MergedCatalogue
    compressor: Compressor
    document_cache: DocumentCache
    web_files: WebFiles
    files: FileListing
    storage: StorageQuota
    tenant_files: TenantFiles
    heavy: HeavyWork
    limiter: Limits
    under_way: UnderWay
    pictures: PreviewQueue
    sockets: ConnectionRegistry
    streams: EventSessions
    client_sockets: ClientSockets
    recorder: Recorder
    v2: V2Parts
    fetches: Fetches
    conversions: Conversions
    copies: CopyReader | None = None
    transfers: Transfers | None = None
    bodies: BodyRoom = field(default_factory=BodyRoom)
    docs: TenantDocs = field(default_factory=TenantDocs)
    upload_names: UploadNames = field(default_factory=UploadNames)
    recurring: RecurringWorkflows = field(default_factory=RecurringWorkflows)
    exclusive_runs: KeyedSemaphore = field(default_factory=KeyedSemaphore)
    large_answers: KeyedSemaphore = field(default_factory=lambda: KeyedSemaphore(LARGE_AT_ONCE))
    heavy_answers: KeyedSemaphore = field(default_factory=lambda: KeyedSemaphore(HEAVY_AT_ONCE))
    held_bytes: HeldBytes = field(default_factory=HeldBytes)
