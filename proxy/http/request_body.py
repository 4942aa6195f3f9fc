"""Reading request bodies: bounded JSON, or a stream that is counted, timed and never held."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Final

from policy.violation import Reason, Violation
from proxy.http.body_memory import BodyPlace
from proxy.http.errors import BodyTimeout, ClientGone
from proxy.http.request import Request

WHOLE_JSON_S: Final = 60.0
"""How long a body that is held may take, however large: a stream takes no memory, and may last."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """max_bytes: of the whole body. timeout_s: how long no byte may come. min_bytes_per_second: below it the sender is cut off.

    whole_s: how long the whole body may take, however fast it comes.
    """

    max_bytes: int
    timeout_s: float
    min_bytes_per_second: int
    whole_s: float = math.inf

    def within(self, max_bytes: int) -> BodyLimits:
        """The same speed for a smaller body."""
        return replace(self, max_bytes=min(max_bytes, self.max_bytes))

    def allowed_s(self, received_bytes: int) -> float:
        """How long a body of that many bytes may have taken."""
        by_speed_s = received_bytes / self.min_bytes_per_second if self.min_bytes_per_second else 1e9
        return min(self.whole_s, self.timeout_s + by_speed_s)


class BodyStream:
    """The client's body as it comes, at most once. Raises Violation, BodyTimeout, ClientGone, CredentialEnded."""

    def __init__(
        self,
        request: Request,
        limits: BodyLimits,
        over: Violation | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """over: what a body beyond the limit is refused with. Raises it at once when the declared length is.

        check: raises CredentialEnded; asked before each piece is handed on, and before the end.
        """
        self._check = check
        self._request = request
        self._limits = limits
        self._over = over
        self.received_bytes = 0
        declared = request.content_length
        if declared is not None and declared > limits.max_bytes:
            raise self._refusal()

    def _refusal(self) -> Violation:
        return self._over or too_large(self._limits.max_bytes)

    @property
    def max_bytes(self) -> int:
        return self._limits.max_bytes

    def at_once(self) -> bytes | None:
        """The whole body where all of it is there already, as small ones are; else None, and nothing of it is read."""
        body = self._request.body
        if not body.is_complete or "Expect" in self._request.headers:
            return None
        pieces = []
        while (piece := body.take()) is not None:
            pieces.append(self._counted(piece))
        self._check()
        return b"".join(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await expect_continue(self._request)
        body = self._request.body
        clock = asyncio.get_running_loop().time
        waited_s = 0.0  # for the client alone: while ComfyUI takes its time the client cannot send
        while True:
            ready = body.take()
            if ready is not None:
                yield self._counted(ready)
                continue
            if body.is_read:
                self._check()
                return
            left_s = min(self._limits.timeout_s, self._limits.allowed_s(self.received_bytes) - waited_s)
            began_s = clock()
            try:
                chunk = await body.read(max(left_s, 0))
            except TimeoutError:
                raise BodyTimeout from None
            except ConnectionError as error:
                raise ClientGone(str(error)) from error
            if not chunk:
                self._check()
                return
            waited_s += clock() - began_s
            yield self._counted(chunk)

    def _counted(self, chunk: bytes) -> bytes:
        self._check()
        self.received_bytes += len(chunk)
        if self.received_bytes > self._limits.max_bytes:
            raise self._refusal()
        return chunk


async def read_whole(
    request: Request, limits: BodyLimits, place: BodyPlace | None = None, over: Violation | None = None
) -> bytes:
    """A bounded body, in the room that `place` takes for it; over: what a larger one is refused with.

    Raises Violation(body-too-large | body-malformed), BodyTimeout, ClientGone, LimitExceeded(bodies-full).
    """
    refuse_encoded(request)
    stream = BodyStream(request, limits, over)
    if not request.can_read_body:
        return b""
    if place is None:
        return b"".join([chunk async for chunk in stream])
    await place.hold(request.content_length or 0)
    if (whole := stream.at_once()) is not None:
        await place.hold(len(whole))
        return whole
    chunks = []
    async for chunk in stream:
        await place.hold(stream.received_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def refuse_encoded(request: Request) -> None:
    """What is judged must be what is kept, and a decompressed body has no bound that its length tells. Raises Violation(body-malformed)."""
    encodings = ",".join(request.headers.getall("Content-Encoding", ())).strip().lower()
    if encodings not in ("", "identity"):
        raise Violation(Reason.BODY_MALFORMED, "Send this body without Content-Encoding.", encodings[:40])


async def expect_continue(request: Request) -> None:
    """Answers `Expect: 100-continue` (RFC 9110, 10.1.1), only once the call is permitted: a refused client never sends its body."""
    expect = request.headers.get("Expect")
    if expect is None:
        return
    if expect.lower() != "100-continue":
        raise Violation(Reason.HEADER_MALFORMED, "The only expectation known here is 100-continue.")
    request.ask_for_body()


def too_large_here(max_bytes: int) -> Violation:
    """For routes that take a small document only, whatever the configuration says."""
    return Violation(
        Reason.BODY_TOO_LARGE, "The body is too large.", f"At most {max_bytes} bytes are accepted on this route."
    )


def too_large(max_bytes: int) -> Violation:
    return Violation(
        Reason.BODY_TOO_LARGE,
        "The body is too large.",
        f"At most {max_bytes} bytes are accepted here; the operator sets max_upload_bytes and max_prompt_bytes in config.toml.",
    )
