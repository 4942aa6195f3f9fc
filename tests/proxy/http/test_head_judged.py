"""A body whose first bytes are judged: refused before more than its head has gone on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from policy.call import HeadJudged
from policy.violation import Reason, Violation
from proxy.http.errors import ClientGone
from proxy.http.head_judged import HeadJudgedStream


class Source:
    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self.chunks, self.error = chunks, error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        if self.error is not None:
            raise self.error


def judge(head: bytes) -> None:
    if not head.startswith(b"good"):
        raise Violation(Reason.FILE_TYPE_REFUSED, "no")


def stream(source: Source, spent: list[int] | None = None) -> HeadJudgedStream:
    async def spend(amount: int) -> None:
        (spent if spent is not None else []).append(amount)

    return HeadJudgedStream(source, HeadJudged(judge, 8), spend)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "chunks", [(b"good and more than a head",), (b"go", b"od", b" and ", b"more"), (b"good",), (b"goodgood", b"more")]
)
async def test_a_good_body_goes_on_whole(chunks: tuple[bytes, ...]) -> None:
    spent: list[int] = []
    assert b"".join([chunk async for chunk in stream(Source(*chunks), spent)]) == b"".join(chunks)
    assert sum(spent) == len(b"".join(chunks))


@pytest.mark.parametrize("chunks", [(b"bad and more than a head",), (b"ba", b"d"), (b"",), ()])
async def test_of_a_bad_body_nothing_goes_on(chunks: tuple[bytes, ...]) -> None:
    body = stream(Source(*chunks))
    with pytest.raises(Violation):
        await anext(aiter(body))


async def test_a_body_that_breaks_off_does_so_for_who_sends_it() -> None:
    body = stream(Source(b"go", error=ClientGone("gone")))
    with pytest.raises(ClientGone):
        _ = [chunk async for chunk in body]
