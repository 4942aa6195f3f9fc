"""The web UI's files, kept in memory: compressed once, validated by ETag, and asked after again when ComfyUI was restarted.

Only files that are the same for everybody come here (policy/table.py, the rows of the web UI). The first load is streamed from ComfyUI as
it is; beside it each file is read once more and compressed, and no request waits for that.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from multidict import CIMultiDict, MultiMapping

from policy.call import ClientCall, ClientReply, Opaque, UpstreamCall
from policy.routes import Caching
from proxy.http import hdrs
from proxy.http.content_coding import IDENTITY, CodedDocument, Selected, version_of
from proxy.http.errors import ReplyTooLarge, UpstreamTimeout, UpstreamUnavailable
from proxy.http.headers import to_client
from proxy.http.responses import cache_control, is_hashed
from proxy.tasks import Tasks
from proxy.upstream.client import Upstream
from proxy.upstream.compressor import CompressionFailed, Compressor

MAX_FILE_BYTES: Final = 16 * 1024**2
"""A larger file is streamed as it comes."""
MAX_BYTES: Final = 32 * 1024**2
"""Of all codings of all files. SECURITY: what is kept gives way to nothing that somebody asks for, so nobody's curiosity takes a neighbour's place."""
MAX_SIDE_BYTES: Final = 8 * 1024**2
"""Of them, what is no part of the page itself: templates, documentation, files of custom nodes."""
MAX_WANTED: Final = 2000
MAX_PASSED_OVER: Final = 4000
MAX_PATH_LENGTH: Final = 512
MAX_SEGMENTS: Final = 32
"""Of what is kept or passed over. SECURITY: thousands of paths are remembered (test_web_files.py::test_a_path_that_no_file_has_is_not_remembered)."""
FRESH_S: Final = 10.0
"""How long a file whose name tells nothing of its content is shown without asking ComfyUI whether it is still the same."""
PATIENCE_S: Final = 2.0
"""How long a request waits for that answer; then it gets what is kept."""
TIME_LIMIT_S: Final = 30.0
_SMALL_BYTES: Final = 1024
_PICTURE_BYTES: Final = 512 * 1024
"""Of a file that does not become smaller: beyond it streaming costs no more."""
_WORTH_IT: Final = 0.9
_PAGE: Final = "text/html"
"""A page is small, and ComfyUI must be there to give it: else a person would get one that can do nothing."""
# Of this answer of ComfyUI's alone, and not of the file: the gate says its own.
_OF_THE_ANSWER: Final = frozenset(
    [
        "accept-ranges",
        "age",
        "cache-control",
        "content-length",
        "content-type",
        "etag",
        "expires",
        "last-modified",
        "pragma",
        "vary",
    ]
)
_MAPS: Final = ".map"  # developers look at them, and they are larger than all else
_SIDES: Final = frozenset({"docs", "extensions", "templates"})
_TEXTS: Final = ("text/", "application/javascript", "application/json", "application/manifest+json", "image/svg+xml")
_TEXTS_BY_NAME: Final = (".js", ".mjs", ".css", ".html", ".json", ".svg", ".ttf", ".eot", ".wasm")

Path = tuple[str, ...]


@dataclass(slots=True)
class _File:
    """generation: of ComfyUI, in which it was last found to be the same; checked_at_s: when."""

    document: CodedDocument
    content_type: str
    fields: tuple[tuple[str, str], ...]
    """What else ComfyUI's answer says of it, as a Content-Security-Policy."""
    upstream_etag: str
    generation: int
    checked_at_s: float
    is_side: bool
    is_hashed: bool
    replies: dict[tuple[str, bool], tuple[Selected, ClientReply]] = field(default_factory=dict)
    """By coding, and whether an edge may share it; each with what it was made of."""


@dataclass(slots=True)
class _Fetched:
    body: bytes
    content_type: str
    fields: tuple[tuple[str, str], ...]
    etag: str


class WebFiles:
    """max_bytes, max_side_bytes: see MAX_BYTES and MAX_SIDE_BYTES."""

    def __init__(
        self,
        upstream: Upstream,
        compressor: Compressor,
        max_bytes: int = MAX_BYTES,
        max_side_bytes: int = MAX_SIDE_BYTES,
    ) -> None:
        self._upstream = upstream
        self._compressor = compressor
        self._max_bytes = max_bytes
        self._max_side_bytes = max_side_bytes
        self._files: dict[Path, _File] = {}
        self._passed_over: dict[Path, None] = {}
        self._wanted: dict[Path, Caching] = {}
        self._checks: dict[Path, asyncio.Task[None]] = {}
        self._tasks = Tasks()
        self._worker: asyncio.Task[None] | None = None
        self._generation = 0

    @property
    def held_bytes(self) -> int:
        return sum(file.document.held_bytes for file in self._files.values())

    async def stop(self) -> None:
        await self._tasks.stop()

    def connected(self) -> None:
        """ComfyUI is there, perhaps anew and with another web UI."""
        self._generation += 1
        self._passed_over.clear()

    async def find(
        self, call: ClientCall, headers: MultiMapping[str], caching: Caching, *, is_shared: bool
    ) -> ClientReply | None:
        """The answer out of what is kept; None when ComfyUI is to be asked. is_shared: as of cache_control."""
        if call.query or hdrs.RANGE in headers or call.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            return None
        file = self._files.get(call.segments)
        if file is not None and not self._is_current(file):
            await self._check(call.segments, file, caching)
            file = self._files.get(call.segments)
        if file is None:
            self._want(call.segments, caching)
            return None
        selected = file.document.select(headers)
        if selected is None:
            return None
        made_of, reply = file.replies.get((selected.coding, is_shared), (None, None))
        if reply is None or made_of is not selected:
            name = call.segments[-1] if call.segments else ""
            reply = _reply(file, selected, cache_control(caching, name, is_shared=is_shared))
            if not selected.is_unchanged:
                file.replies[selected.coding, is_shared] = selected, reply
        return reply

    def _is_current(self, file: _File) -> bool:
        is_fresh = file.is_hashed or time.monotonic() - file.checked_at_s <= FRESH_S
        return file.generation == self._generation and is_fresh

    async def _check(self, path: Path, file: _File, caching: Caching) -> None:
        """Asks ComfyUI whether it has this very file, once for all who wait; a file that is another one by now is taken out."""
        check = self._checks.get(path)
        if check is None or check.done():
            check = self._checks[path] = self._tasks.start(self._ask_again(path, file, caching), "web file check")
            check.add_done_callback(
                lambda done: self._checks.pop(path, None) if self._checks.get(path) is done else None
            )
        await asyncio.wait((check,), timeout=PATIENCE_S)

    async def _ask_again(self, path: Path, file: _File, caching: Caching) -> None:
        generation = self._generation
        try:
            fetched = await self._fetch(path, file.upstream_etag)
        except (UpstreamUnavailable, UpstreamTimeout):
            return  # what is kept is better than nothing
        except ReplyTooLarge:
            fetched = None
        if fetched is None or (isinstance(fetched, _Fetched) and version_of(fetched.body) != file.document.version):
            self._files.pop(path, None)
            return
        file.generation, file.checked_at_s = generation, time.monotonic()

    def _want(self, path: Path, caching: Caching) -> None:
        if path[-1:] and path[-1].endswith(_MAPS):
            return
        if len(path) > MAX_SEGMENTS or sum(map(len, path)) > MAX_PATH_LENGTH:
            return
        if path in self._passed_over or path in self._wanted or len(self._wanted) >= MAX_WANTED:
            return
        self._wanted[path] = caching
        if self._worker is None or self._worker.done():
            self._worker = self._tasks.start(self._keep_wanted(), "web files")

    async def _keep_wanted(self) -> None:
        """File by file: read, compressed, shown from then on. The slowest coding comes when all files are there."""
        unfinished: deque[_File] = deque()
        while self._wanted or unfinished:
            if not self._wanted:
                with suppress(CompressionFailed):
                    await self._add_slowest(unfinished.popleft())
                continue
            path = next(iter(self._wanted))
            caching = self._wanted[path]
            try:
                kept = await self._keep(path, caching)
            except (UpstreamUnavailable, UpstreamTimeout, ReplyTooLarge, CompressionFailed):
                kept = None
            finally:
                del self._wanted[path]
            if kept is None:
                self._pass_over(path)
            elif IDENTITY not in kept.document:
                unfinished.append(kept)

    async def _keep(self, path: Path, caching: Caching) -> _File | None:
        generation = self._generation
        fetched = await self._fetch(path)
        if not isinstance(fetched, _Fetched) or fetched.content_type.startswith(_PAGE):
            return None
        body, name = fetched.body, path[-1] if path else ""
        is_text = fetched.content_type.startswith(_TEXTS) or name.endswith(_TEXTS_BY_NAME)
        bodies = {}
        if is_text and len(body) >= _SMALL_BYTES:
            bodies = {coding: await self._compressor.best(coding, body) for coding in ("zstd", "gzip")}
        if not bodies or len(bodies["zstd"]) > len(body) * _WORTH_IT:
            if len(body) >= _SMALL_BYTES and not (is_hashed(caching, name) and len(body) <= _PICTURE_BYTES):
                return None
            bodies = {IDENTITY: body}
        document = CodedDocument(version_of(body), bodies)
        is_side = bool(path) and path[0] in _SIDES
        if not self._has_room(document.held_bytes, is_side):
            return None
        kind, hashed, now_s = fetched.content_type, is_hashed(caching, name), time.monotonic()
        file = _File(document, kind, fetched.fields, fetched.etag, generation, now_s, is_side, hashed)
        self._files[path] = file
        return file

    async def _add_slowest(self, file: _File) -> None:
        """Of what is kept, so that no file is held without a coding meanwhile."""
        body = await asyncio.to_thread(file.document.unpacked)
        packed = await self._compressor.best("br", body)
        if self._has_room(len(packed), file.is_side):
            file.document.add("br", packed)

    def _has_room(self, size: int, is_side: bool) -> bool:
        held = side = 0
        for path, file in list(self._files.items()):
            if file.generation < self._generation - 1:
                del self._files[path]  # nobody has asked for it since ComfyUI was restarted twice
                continue
            held += file.document.held_bytes
            side += file.document.held_bytes if file.is_side else 0
        return held + size <= self._max_bytes and (not is_side or side + size <= self._max_side_bytes)

    def _pass_over(self, path: Path) -> None:
        self._passed_over[path] = None
        if len(self._passed_over) > MAX_PASSED_OVER:
            del self._passed_over[next(iter(self._passed_over))]

    async def _fetch(self, path: Path, etag: str = "") -> _Fetched | bool | None:
        """The file; True when it is the one with this tag; None when there is none that may be kept."""
        headers = CIMultiDict({hdrs.ACCEPT_ENCODING: IDENTITY})
        if etag:
            headers[hdrs.IF_NONE_MATCH] = etag
        call = UpstreamCall("GET", tuple(map(Opaque, path)))
        async with await self._upstream.open(call, headers, time_limit_s=TIME_LIMIT_S) as stream:
            if etag and stream.status == 304:
                return True
            fields = stream.headers
            tag = fields.get(hdrs.ETAG, "")
            varies = {name.strip().lower() for name in fields.get(hdrs.VARY, "").split(",")} - {"", "accept-encoding"}
            # SECURITY: what may be another file for another caller is kept for nobody (test_web_files.py).
            if (
                stream.status != 200
                or not tag
                or varies
                or hdrs.SET_COOKIE in fields
                or hdrs.CONTENT_ENCODING in fields
            ):
                return None
            others = tuple(pair for pair in to_client(fields).items() if pair[0].lower() not in _OF_THE_ANSWER)
            return _Fetched(await stream.body(MAX_FILE_BYTES), fields.get(hdrs.CONTENT_TYPE, "text/plain"), others, tag)


def _reply(file: _File, selected: Selected, caching: str) -> ClientReply:
    own = (("Cache-Control", caching), ("X-Content-Type-Options", "nosniff"))
    fields = (*file.fields, *selected.fields, *own)
    return ClientReply(304 if selected.is_unchanged else 200, selected.body, file.content_type, fields)
