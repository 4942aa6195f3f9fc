"""An upload on its way to ComfyUI, held before its end until a rule has seen what came: ComfyUI stores nothing of a body that is broken off."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from multidict import CIMultiDict

from policy.call import UpstreamCall, UpstreamReply
from policy.v2.asset_uploads import AssetUploadSession
from policy.v2.effects import Received
from proxy.files.hashing import blake3
from proxy.http import hdrs
from proxy.http.multipart_upload import UploadStream
from proxy.steps.forward import Forwarder
from proxy.steps.held import Held
from proxy.steps.permit import PermittedRequest
from proxy.tasks import Tasks

MAX_ANSWER_BYTES: Final = 64 * 1024


class HeldUpload:
    """One upload of one request. held: what the request keeps until its answer has left."""

    def __init__(self, forwarder: Forwarder, permitted: PermittedRequest, held: Held) -> None:
        self._forwarder = forwarder
        self._permitted = permitted
        self._held = held
        self._hash = blake3()
        self._size_bytes = 0
        self._received_bytes = 0
        self._has_arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._may_end = asyncio.Event()
        self._tasks = Tasks(is_watched=True)
        self._sending: asyncio.Task[UpstreamReply] | None = None

    async def receive(self, call: UpstreamCall) -> Received | UpstreamReply:
        """All of the client's body, and ComfyUI has all but its end; or the answer of a ComfyUI that did not wait for it.

        Raises what the client's body breaks with, Violation, LimitExceeded, UpstreamUnavailable, UpstreamTimeout.
        """
        assert self._sending is None, "one upload for each request"
        body = (await self._forwarder.body_of(self._permitted, call, self._held)).content
        assert isinstance(body, UploadStream), "what the rule asks for"
        body.on_file, body.before_end = self._take, self._wait
        sending = self._sending = self._tasks.start(self._send(call, body), "upload of an asset")
        await asyncio.wait({sending, self._has_arrived}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            answer: UpstreamReply = await sending
            return answer
        session = body.session
        assert isinstance(session, AssetUploadSession), "what the rule's plan makes"
        self._received_bytes = body.received_bytes
        return Received(f"blake3:{self._hash.hexdigest()}", self._size_bytes, session.upload)

    async def finish(self) -> UpstreamReply:
        """ComfyUI gets the end, and stores the file. Raises UpstreamUnavailable, UpstreamTimeout."""
        assert self._sending is not None, "receive() comes first"
        started_s = time.perf_counter()
        self._may_end.set()
        reply: UpstreamReply = await self._sending
        self._permitted.record.upstream_s += time.perf_counter() - started_s
        if reply.status < 400:
            self._forwarder.stored(self._permitted.principal.tenant, self._received_bytes)
        return reply

    async def close(self) -> None:
        """Breaks off what was not finished."""
        await self._tasks.stop()

    async def _send(self, call: UpstreamCall, body: UploadStream) -> UpstreamReply:
        fields = CIMultiDict({hdrs.ACCEPT_ENCODING: "identity", hdrs.CONTENT_TYPE: body.content_type})
        return await self._forwarder.ask(self._permitted, call, fields, body, MAX_ANSWER_BYTES)

    def _take(self, data: bytes) -> None:
        self._hash.update(data)
        self._size_bytes += len(data)

    async def _wait(self) -> None:
        if not self._has_arrived.done():
            self._has_arrived.set_result(None)
        await self._may_end.wait()
