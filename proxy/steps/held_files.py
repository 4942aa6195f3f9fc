"""The files of one call, one after the other: each goes to ComfyUI's upload, held before its end until a rule has seen what came (held_upload.py)."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable

from multidict import CIMultiDict

from policy.call import UploadBody, UpstreamCall, UpstreamReply
from policy.v2.asset_uploads import FILE_FIELD, AssetUploadSession
from policy.v2.effects import FetchFile, FormFile, FormText, Received, ReceiveFile
from policy.violation import Reason, Violation
from proxy.files.hashing import blake3
from proxy.http import hdrs
from proxy.http.form_parts import FormParts
from proxy.http.multipart_part import malformed
from proxy.http.multipart_upload import HEAD_BYTES, begin_file, boundary_of, end_fields
from proxy.steps.file_fetching import FileFetching
from proxy.steps.forward import Forwarder
from proxy.steps.held import Held
from proxy.steps.held_upload import MAX_ANSWER_BYTES
from proxy.steps.permit import PermittedRequest
from proxy.tasks import Tasks


class _File:
    """What ComfyUI gets of one file. Raises what its content does, and Violation."""

    def __init__(
        self, session: AssetUploadSession, name: Callable[[bytes], str], content: AsyncIterator[bytes]
    ) -> None:
        """name: finds the file's by its first bytes."""
        self._session = session
        self._name = name
        self._content = content
        self._boundary = f"comfygate-{secrets.token_hex(16)}"
        self._hash = blake3()
        self.size_bytes = 0
        self.has_arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.may_end = asyncio.Event()

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self._boundary}"

    def received(self) -> Received:
        """When it has arrived."""
        return Received(f"blake3:{self._hash.hexdigest()}", self.size_bytes, self._session.upload)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        head = bytearray()
        async for piece in self._content:
            head += piece
            if len(head) >= HEAD_BYTES:
                break
        judged = bytes(head[:HEAD_BYTES])
        name = self._session.accept_file(FILE_FIELD, self._name(judged), judged)
        yield begin_file(self._boundary, name)
        yield self._taken(bytes(head))
        async for piece in self._content:
            yield self._taken(piece)
        last = b"\r\n" + end_fields(self._boundary, self._session.fields_to_send())
        self.has_arrived.set_result(None)
        await self.may_end.wait()
        yield last

    def _taken(self, piece: bytes) -> bytes:
        self._hash.update(piece)
        self.size_bytes += len(piece)
        return piece


class HeldFiles:
    """held: what the request keeps until its answer has left."""

    def __init__(
        self, forwarder: Forwarder, permitted: PermittedRequest, held: Held, fetching: FileFetching | None = None
    ) -> None:
        self._forwarder = forwarder
        self._permitted = permitted
        self._held = held
        self._fetching = fetching
        self._tasks = Tasks(is_watched=True)
        self._form: FormParts | None = None
        self._file: _File | None = None
        self._sending: asyncio.Task[UpstreamReply] | None = None

    async def read_part(self, room: int) -> FormText | FormFile | None:
        """See ReadPart. Raises what the client's body breaks with, Violation, LimitExceeded."""
        form = self._form = self._form or await self._begin()
        part = await form.next()
        if part is None:
            return None
        if part.filename is not None:
            return FormFile(part.name, part.filename)
        text = bytearray()
        async for piece in form.content():
            text += piece
            if len(text) > room:
                raise Violation(Reason.BODY_TOO_LARGE, "The texts of this form are too large.", part.name[:64])
        try:
            return FormText(part.name, text.decode("utf-8"))
        except UnicodeDecodeError:
            raise malformed("texts must be UTF-8") from None

    async def skip_file(self) -> bool:
        assert self._form is not None, "read_part() comes first"
        size = 0
        async for piece in self._form.content():
            size += len(piece)
        return size > 0

    async def receive(self, step: ReceiveFile | FetchFile) -> Received | UpstreamReply:
        """ComfyUI has all of it but its end; or the answer of a ComfyUI that did not wait for it. A file before that was not finished is broken off.

        Raises what the client's body breaks with, FetchFailed, Violation, LimitExceeded, UpstreamUnavailable, UpstreamTimeout.
        """
        await self._tasks.stop()
        await self._forwarder.spend_file(self._permitted)
        if isinstance(step, FetchFile):
            assert self._fetching is not None, "of a run that fetches"
            async with self._fetching.content(step, self._permitted) as found:
                return await self._send_on(step.call, step.name, found)
        if step.data is None:
            assert self._form is not None, "read_part() comes first"
            content = self._form.content()
        else:
            await self._forwarder.pay_for(self._permitted, len(step.data), self._held)
            content = _once(step.data)
        return await self._send_on(step.call, lambda head: step.filename, content)

    async def _send_on(
        self, call: UpstreamCall, name: Callable[[bytes], str], content: AsyncIterator[bytes]
    ) -> Received | UpstreamReply:
        assert isinstance(call.body, UploadBody), "what the rule asks for"
        file = self._file = _File(call.body.plan.begin(), name, content)
        fields = CIMultiDict({hdrs.ACCEPT_ENCODING: "identity", hdrs.CONTENT_TYPE: file.content_type})
        sending = self._sending = self._tasks.start(
            self._forwarder.ask(self._permitted, call, fields, file, MAX_ANSWER_BYTES), "upload of a file"
        )
        await asyncio.wait({sending, file.has_arrived}, return_when=asyncio.FIRST_COMPLETED)
        return await sending if sending.done() else file.received()

    async def finish(self) -> UpstreamReply:
        """ComfyUI gets the end, and stores the file. Raises UpstreamUnavailable, UpstreamTimeout."""
        assert self._sending is not None, "receive() comes first"
        assert self._file is not None
        started_s = time.perf_counter()
        self._file.may_end.set()
        reply = await self._sending
        self._permitted.record.upstream_s += time.perf_counter() - started_s
        if reply.status < 400:
            self._forwarder.stored(self._permitted.principal.tenant, self._file.size_bytes)
        return reply

    async def close(self) -> None:
        """Breaks off what was not finished."""
        await self._tasks.stop()
        if self._fetching is not None:
            self._fetching.close()

    async def _begin(self) -> FormParts:
        source = await self._forwarder.client_body(self._permitted, self._held, is_upload=True)
        boundary = boundary_of(self._permitted.request)
        return FormParts(source, boundary, lambda amount: self._forwarder.spend(self._permitted, amount))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
