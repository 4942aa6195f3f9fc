"""Begins streams of events: whose job it is, how many a tenant may hold, and who ends them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from multidict import CIMultiDict

from policy.principal import Principal
from policy.v2.errors import no_job
from policy.v2.events import EVENT_STREAM
from policy.v2.links import Links
from policy.v2.paths import is_v2
from proxy.http import hdrs
from proxy.http.handed_over import hand_over
from proxy.http.replies import ForwardedReply, Taker, UpgradedReply
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from proxy.http.responses import add_common_headers
from proxy.v2.event_stream import EventStream, KeepAlive
from proxy.v2.job_streams import JobStreams
from proxy.v2.job_views import JobViews
from proxy.websocket.connections import ConnectionRegistry, Socket
from proxy.websocket.places import Slot

_FIELDS: Final = (
    (hdrs.CONTENT_TYPE, EVENT_STREAM),
    (hdrs.CACHE_CONTROL, "no-store"),
    ("X-Accel-Buffering", "no"),
)


class EventStreams:
    """slot: of `ConcurrencyLimits.claim_socket`. sockets: ends them when the gate stops, or a credential does."""

    def __init__(self, streams: JobStreams, views: JobViews, sockets: ConnectionRegistry, slot: Slot) -> None:
        self._streams = streams
        self._views = views
        self._sockets = sockets
        self._slot = slot
        self._keep_alive = KeepAlive()

    def stop(self) -> None:
        self._keep_alive.stop()

    async def serve(
        self, request: Request, record: RequestRecord, principal: Principal, prompt_id: str, links: Links
    ) -> ForwardedReply | UpgradedReply:
        """The connection is the stream's from now on, and needs its request no more; but for HEAD, which has no body.

        Raises Violation(not-found), LimitExceeded, DatabaseUnavailable, and ConnectionResetError when the client has gone.
        """
        if not await self._views.has(principal.tenant, prompt_id):
            raise no_job(is_v2=is_v2(record.raw_path))
        fields = CIMultiDict(_FIELDS)
        add_common_headers(record, fields)
        if request.method == "HEAD":
            return ForwardedReply(200, list(fields.items()), _Nothing())
        slot = await self._slot(principal)
        slot.__enter__()
        stream = EventStream(links, is_chunked=request.version >= (1, 1))
        try:
            await hand_over(request, stream, 200, tuple(fields.items()))
        except BaseException:
            slot.__exit__(None, None, None)
            raise
        record.status = 200
        stream.at_end(partial(self._left, stream, record, slot, self._sockets.register(principal, stream)))
        self._keep_alive.watch(stream)
        self._streams.attach(principal.tenant, prompt_id, stream)
        return UpgradedReply(stream.at_end)

    def _left(
        self, stream: EventStream, record: RequestRecord, slot: AbstractContextManager[object], socket: Socket
    ) -> None:
        record.sent_bytes = stream.sent_bytes
        self._sockets.remove(socket)
        slot.__exit__(None, None, None)


class _Nothing:
    """The body of an answer to HEAD."""

    async def pour(self, taker: Taker) -> None:
        return
