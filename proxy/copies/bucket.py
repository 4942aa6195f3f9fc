"""The operator's bucket, or folder: the one place that knows obstore. Every call has an end, and every error a line without secrets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from policy.copies import disposition_of
from proxy.files.comfyui_folders import content_type_of

if TYPE_CHECKING:
    from obstore import Bytes, GetResult
    from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

PART_BYTES: Final = 5 * 1024**2
"""The smallest that S3 takes for all parts but the last; a file of more than 48 GiB has larger ones."""
MAX_PARTS: Final = 10_000
"""Of one object, on S3."""
PARTS_AT_ONCE: Final = 2
CALL_LIMIT_S: Final = 60.0
"""For everything but an upload, with what obstore tries again."""
SLOWEST_BYTES_PER_S: Final = 128 * 1024
"""An upload is given up that is slower on the whole."""
MAX_NOTE: Final = 300
_DETAILS: Final = re.compile(r"(?s)\n\nDebug source:.*")
_CODE: Final = re.compile(r"<(?:Code|Message)>([^<]{1,100})<")
_QUERY: Final = re.compile(r"(https?://[^\s?]*)\?[^\s)]*")
_UNPRINTABLE: Final = re.compile(r"[^ -~]+")

T = TypeVar("T")


class BucketFailed(Exception):
    """The text says what happened, in one line; it may be shown to the operator."""


class ObjectGone(BucketFailed):
    """There is no such object."""


class Bucket:
    """store: asks it. signer: signs for where clients reach it; None where nothing is signed. place: what a log line may call it."""

    def __init__(
        self,
        store: S3Store | GCSStore | AzureStore | LocalStore,
        signer: S3Store | GCSStore | AzureStore | None,
        place: str,
    ) -> None:
        self._store = store
        self._signer = signer
        self.place = place

    @property
    def has_links(self) -> bool:
        return self._signer is not None

    async def put(self, key: str, pieces: AsyncIterator[bytes], size_bytes: int, content_type: str, name: str) -> None:
        """Stores an object, whole or not at all, and looks whether it has its size. In parts: at most PARTS_AT_ONCE of them are in memory, and a half.

        Raises BucketFailed, and what the pieces raise.
        """
        import obstore

        part_bytes = max(PART_BYTES, -(-size_bytes // MAX_PARTS))
        is_small = size_bytes <= part_bytes
        feed = _Feed(pieces)
        work = obstore.put_async(
            self._store,
            key,
            await _joined(feed) if is_small else feed,
            # A local folder has no room for them.
            attributes=None if self._signer is None else _attributes(content_type, name),
            use_multipart=not is_small,
            chunk_size=part_bytes,
            max_concurrency=PARTS_AT_ONCE,
        )
        try:
            await _call(work, CALL_LIMIT_S + size_bytes / SLOWEST_BYTES_PER_S)
        except BucketFailed:
            if feed.failure is not None:
                raise feed.failure from None
            raise
        finally:
            await feed.close()
        stored_bytes = await self.size_of(key)
        if stored_bytes != size_bytes:
            raise BucketFailed(f"it has {stored_bytes} bytes there, of {size_bytes}")

    async def size_of(self, key: str) -> int:
        """In bytes. Raises ObjectGone, BucketFailed."""
        import obstore

        return int((await _call(obstore.head_async(self._store, key)))["size"])

    async def read(self, key: str, start: int, count: int, size_bytes: int) -> bytes:
        """These bytes of an object of that size. Raises ObjectGone, BucketFailed."""
        import obstore

        if count < size_bytes:
            return bytes(await _call(obstore.get_range_async(self._store, key, start=start, length=count)))
        # Not every server answers a range that is the whole with 206 (RFC 9110, 14.2), which obstore then refuses.
        found = await _call(obstore.get_async(self._store, key))
        if found.meta["size"] != size_bytes:
            raise BucketFailed(f"it has {found.meta['size']} bytes there, of {size_bytes}")
        return bytes(await _call(_whole(found)))

    async def delete(self, key: str) -> None:
        """Also what is not there. Raises BucketFailed."""
        import obstore

        with suppress(ObjectGone):
            await _call(obstore.delete_async(self._store, key))

    async def sign(self, keys: Sequence[str], lasts_s: float) -> list[str]:
        """Links to these objects that work for so long; none where nothing is signed. Raises BucketFailed."""
        import obstore

        if self._signer is None or not keys:
            return []
        return list(await _call(obstore.sign_async(self._signer, "GET", list(keys), timedelta(seconds=lasts_s))))


def _attributes(content_type: str, name: str) -> dict[str, str]:
    # SECURITY: on the bucket's own origin nothing that a job made runs (tests/proxy/copies/test_bucket.py).
    is_shown = content_type_of(name) is not None
    return {
        "Content-Type": content_type if is_shown else "application/octet-stream",
        "Content-Disposition": disposition_of(name.rpartition("/")[2], is_shown=is_shown),
        "Cache-Control": "private, max-age=3600",
    }


async def _whole(found: GetResult) -> Bytes:
    return await found.bytes_async()


async def _joined(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


class _Feed:
    """What obstore reads from. failure: what the pieces raised, for which obstore has its own words."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._turn = asyncio.Lock()
        self._is_closed = False
        self.failure: Exception | None = None

    def __aiter__(self) -> _Feed:
        return self

    async def __anext__(self) -> bytes:
        async with self._turn:
            if self._is_closed:
                raise StopAsyncIteration
            try:
                return await anext(self._pieces)
            except StopAsyncIteration:
                raise
            except Exception as error:
                self.failure = error
                raise

    async def close(self) -> None:
        """Nothing is read any more: what obstore has asked for last comes first, also where it does not wait for it."""
        async with self._turn:
            self._is_closed = True


async def _call(work: Coroutine[Any, Any, T], limit_s: float = CALL_LIMIT_S) -> T:
    """Raises ObjectGone, BucketFailed."""
    try:
        async with asyncio.timeout(limit_s):
            return await work
    except FileNotFoundError:
        raise ObjectGone("there is no such object") from None
    except TimeoutError:
        raise BucketFailed(f"it did not end within {limit_s:.0f} s") from None
    except Exception as error:  # obstore's have no common class but Exception
        raise BucketFailed(note_of(error)) from None


def note_of(error: Exception) -> str:
    """One line, without what obstore tells for its developers.

    SECURITY: without the queries of addresses, which may hold a signature, or Azure's shared access token (tests/proxy/copies/test_bucket.py).
    """
    text = _DETAILS.sub("", str(error)).replace("\u00b5s", "us") or type(error).__name__
    words = ": ".join(_CODE.findall(text))
    line = _QUERY.sub(r"\1", text.partition("<?xml")[0].partition("<!DOCTYPE")[0])
    line = _UNPRINTABLE.sub(" ", line).strip(" :")[:MAX_NOTE]
    return f"{line} ({words[:MAX_NOTE]})" if words else line
