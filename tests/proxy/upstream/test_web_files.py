"""The web UI's files: streamed the first time, kept and compressed beside it, and never older than ComfyUI's by much."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import brotli
import pytest
from aiohttp import web
from multidict import CIMultiDict

from policy.call import ClientCall, ClientReply
from policy.routes import Caching
from proxy.upstream.client import Upstream
from proxy.upstream.compressor import CompressionFailed, Compressor
from proxy.upstream.web_files import FRESH_S, WebFiles
from tests.harness import running_gate
from tests.proxy.upstreams import comfy_like, serving

SCRIPT = b"export function lighthouse(storm) { return storm + 1 }\n" * 400
HASHED = ("assets", "main-Ab3_dE6h.js")
PLAIN = ("extensions", "pack", "menu.js")


class Files:
    """A ComfyUI with these files. asked: the paths, with the validator that came along. fields: besides, in each answer."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[tuple[str, str]] = []
        self.fields: dict[str, str] = {}

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        tag = request.headers.get("If-None-Match", "")
        self.asked.append((request.path, tag))
        body = self.files.get(request.path)
        if body is None:
            return web.Response(status=404)
        fields = {"ETag": f'"{len(body)}-{hash(body)}"', **self.fields}
        if tag == fields["ETag"]:
            return web.Response(status=304, headers=fields)
        kinds = {"png": "image/png", "html": "text/html"}
        kind = kinds.get(request.path.rpartition(".")[2], "text/javascript")
        return web.Response(body=body, content_type=kind, headers=fields)


@asynccontextmanager
async def keeping(comfy: Files, compressor: Compressor | None = None, **options: Any) -> AsyncIterator[WebFiles]:
    compressor = compressor or Compressor()
    async with serving(comfy) as url:
        upstream = Upstream(url, 5)
        files = WebFiles(upstream, compressor, **options)
        try:
            yield files
        finally:
            await files.stop()
            await compressor.stop()
            await upstream.stop()


async def find(
    files: WebFiles, path: tuple[str, ...] = HASHED, accepted: str = "br", method: str = "GET", **fields: str
) -> ClientReply | None:
    headers = CIMultiDict({"Accept-Encoding": accepted} | {name.replace("_", "-"): fields[name] for name in fields})
    caching = Caching.HASHED if path[:1] == ("assets",) else Caching.WEB_UI
    return await files.find(ClientCall(method, path), headers, caching, is_shared=False)


async def kept(files: WebFiles, path: tuple[str, ...] = HASHED, **more: str) -> ClientReply | None:
    """The answer after the first one, when all is done that it began."""
    assert await find(files, path, **more) is None
    await files._tasks.finish()
    return await find(files, path, **more)


def head_of(reply: ClientReply) -> dict[str, str]:
    return dict(reply.headers)


@pytest.mark.parametrize(("accepted", "unpack"), [("gzip", gzip.decompress), ("gzip, br", brotli.decompress)])
async def test_a_file_is_kept_in_every_coding(accepted: str, unpack: Callable[[bytes], bytes]) -> None:
    comfy = Files({"/assets/main-Ab3_dE6h.js": SCRIPT})
    async with keeping(comfy) as files:
        reply = await kept(files, accepted=accepted)
        assert reply is not None
        assert unpack(reply.body) == SCRIPT
        assert reply.content_type.startswith("text/javascript")
        head = head_of(reply)
        assert (head["Vary"], head["X-Content-Type-Options"]) == ("Accept-Encoding", "nosniff")
        assert head["Cache-Control"] == "private, max-age=31536000, immutable"
        again = await find(files, accepted=accepted, If_None_Match=f"W/{head['ETag']}")
        assert again is not None
        assert (again.status, again.body, head_of(again)["ETag"]) == (304, b"", head["ETag"])
        assert "Content-Encoding" not in head_of(again)
    assert len(comfy.asked) == 1


async def test_what_comfyui_says_of_a_file_is_kept_with_it() -> None:
    comfy = Files({"/assets/main-Ab3_dE6h.js": SCRIPT})
    comfy.fields = {
        "Content-Security-Policy": "default-src 'self'",
        "Last-Modified": "x",
        "X-Pack": "1",
        "Connection": "X-Pack",
    }
    async with keeping(comfy) as files:
        reply = await kept(files)
        assert reply is not None
        names = [name for name, _ in reply.headers]
        assert head_of(reply)["Content-Security-Policy"] == "default-src 'self'"
        assert len(names) == len({name.lower() for name in names}), "each once"
        assert not {"Last-Modified", "X-Pack", "Connection", "Server", "Date"} & set(names)


@pytest.mark.parametrize(
    "more", [{"accepted": ""}, {"accepted": "deflate"}, {"Range": "bytes=0-1"}, {"method": "POST"}], ids=str
)
async def test_other_questions_go_to_comfyui(more: dict[str, str]) -> None:
    async with keeping(Files({"/assets/main-Ab3_dE6h.js": SCRIPT})) as files:
        assert await kept(files) is not None
        assert await find(files, **more) is None  # type: ignore[arg-type]
        call = ClientCall("GET", HASHED, (("v", "2"),))
        assert await files.find(call, CIMultiDict({"Accept-Encoding": "br"}), Caching.HASHED, is_shared=False) is None


@pytest.mark.parametrize("path", [("extensions", "x" * 600), ("extensions", *["ab"] * 40)], ids=["long", "deep"])
async def test_a_path_that_no_file_has_is_not_remembered(path: tuple[str, ...]) -> None:
    """Thousands of them are: each of some thousand segments would take a third of a megabyte."""
    comfy = Files({"/" + "/".join(path): SCRIPT})
    async with keeping(comfy) as files:
        assert await kept(files, path) is None
        assert (files._passed_over, files._wanted) == ({}, {})
    assert comfy.asked == [], "nothing was read beside the answer"


async def test_an_answer_is_made_once_for_each_coding_and_kind_of_edge() -> None:
    async with keeping(Files({"/assets/main-Ab3_dE6h.js": SCRIPT})) as files:
        first = await kept(files, accepted="gzip")
        assert await find(files, accepted="br;q=0.1, gzip") is first
        zipped = CIMultiDict({"Accept-Encoding": "gzip"})
        shared = await files.find(ClientCall("GET", HASHED), zipped, Caching.HASHED, is_shared=True)
        assert shared is not None
        assert head_of(shared)["Cache-Control"] == "public, max-age=31536000, immutable"
        assert await find(files, accepted="gzip") is first
        files._files[HASHED].document.add("gzip", gzip.compress(SCRIPT, 1))
        again = await find(files, accepted="gzip")
        assert again is not None
        assert first is not None
        assert gzip.decompress(again.body) == SCRIPT
        assert head_of(again)["ETag"] != head_of(first)["ETag"]


class Slow(Compressor):
    """Waits to be told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def best(self, coding: str, data: bytes) -> bytes:
        await self.go_on.wait()
        return await super().best(coding, data)


async def test_no_request_waits_for_compression() -> None:
    slow = Slow()
    async with keeping(Files({"/assets/main-Ab3_dE6h.js": SCRIPT}), slow) as files:
        for _ in range(3):
            assert await find(files) is None
        slow.go_on.set()
        await files._tasks.finish()
        assert await find(files) is not None


class Failing(Compressor):
    def __init__(self, *codings: str) -> None:
        super().__init__()
        self._codings = codings

    async def best(self, coding: str, data: bytes) -> bytes:
        if coding in self._codings:
            raise CompressionFailed
        return await super().best(coding, data)


async def test_where_compressing_fails_files_are_streamed_as_they_are() -> None:
    comfy = Files({"/assets/main-Ab3_dE6h.js": SCRIPT})
    async with keeping(comfy, Failing("zstd", "br", "gzip")) as files:
        for _ in range(2):
            assert await kept(files) is None
    assert len(comfy.asked) == 1, "and read beside it once"


async def test_a_file_is_kept_without_the_coding_that_failed() -> None:
    async with keeping(Files({"/assets/main-Ab3_dE6h.js": SCRIPT}), Failing("br")) as files:
        reply = await kept(files, accepted="gzip, br")
        assert reply is not None
        assert head_of(reply)["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(
    "fields", [{"Set-Cookie": "a=b"}, {"Vary": "Cookie"}, {"ETag": ""}, {"Content-Encoding": "br"}], ids=str
)
async def test_what_may_differ_by_caller_is_not_kept(fields: dict[str, str]) -> None:
    comfy = Files({"/assets/main-Ab3_dE6h.js": SCRIPT})
    comfy.fields = fields
    async with keeping(comfy) as files:
        assert await kept(files) is None


async def test_what_is_not_there_is_not_asked_for_twice_beside() -> None:
    comfy = Files({})
    async with keeping(comfy) as files:
        assert await kept(files) is None
        await files._tasks.finish()
    assert len(comfy.asked) == 1


async def test_a_hashed_file_is_asked_after_once_when_comfyui_was_restarted() -> None:
    comfy = Files({"/assets/main-Ab3_dE6h.js": SCRIPT})
    async with keeping(comfy) as files:
        assert await kept(files) is not None
        files.connected()
        for _ in range(3):
            assert await find(files) is not None
        assert [bool(tag) for _, tag in comfy.asked] == [False, True]
        del comfy.files["/assets/main-Ab3_dE6h.js"]
        files.connected()
        assert await find(files) is None
        await files._tasks.finish()
        assert await find(files) is None


async def test_a_file_of_a_plain_name_is_as_fresh_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr("proxy.upstream.web_files.time.monotonic", lambda: now_s)
    comfy = Files({"/extensions/pack/menu.js": SCRIPT})
    async with keeping(comfy) as files:
        assert await kept(files, PLAIN) is not None
        comfy.files["/extensions/pack/menu.js"] = SCRIPT + b"// another"
        now_s += FRESH_S
        reply = await find(files, PLAIN)
        assert reply is not None
        assert head_of(reply)["Cache-Control"] == "private, no-cache"
        assert brotli.decompress(reply.body) == SCRIPT
        now_s += 0.1
        assert await find(files, PLAIN) is None, "ComfyUI has another one"
        await files._tasks.finish()
        reply = await find(files, PLAIN)
        assert reply is not None
        assert brotli.decompress(reply.body) == SCRIPT + b"// another"


async def test_what_is_kept_is_shown_while_comfyui_is_away() -> None:
    comfy = Files({"/assets/main-Ab3_dE6h.js": SCRIPT})
    async with serving(comfy) as url:
        upstream = Upstream(url, 5)
        compressor = Compressor()
        files = WebFiles(upstream, compressor)
        assert await kept(files) is not None
    files.connected()
    assert await find(files) is not None
    await files.stop()
    await compressor.stop()
    await upstream.stop()


async def test_nobody_takes_the_place_of_what_is_kept() -> None:
    noise = {f"/docs/{number}.js": compressible(number) for number in range(20)}
    pages = {f"/assets/page-Ab3_dE6{number}.js": compressible(100 + number) for number in range(3)}
    async with keeping(Files({**noise, **pages}), max_bytes=80_000, max_side_bytes=20_000) as files:
        for path in [*noise, *pages]:
            await find(files, tuple(path[1:].split("/")))
        await files._tasks.finish()
        assert sum(path in files._files for path in (tuple(path[1:].split("/")) for path in noise)) in range(1, 4)
        assert files.held_bytes <= 80_000
        for path in pages:
            assert await find(files, tuple(path[1:].split("/"))) is not None


def compressible(number: int) -> bytes:
    """Some kilobytes in each coding, and others for each number."""
    return "".join(f"{number * 7919 + step * step:x}," for step in range(1500)).encode()


async def test_pictures_are_kept_where_their_name_is_hashed_and_maps_never() -> None:
    noise = bytes(range(256)) * 8 + SCRIPT[:1]
    paths = {"/assets/logo-Ab3_dE6h.png": noise, "/fonts/logo.png": noise, "/assets/main-Ab3_dE6h.js.map": SCRIPT}
    async with keeping(Files(paths)) as files:
        reply = await kept(files, ("assets", "logo-Ab3_dE6h.png"))
        assert reply is not None
        assert (reply.body, head_of(reply).get("Content-Encoding")) == (noise, None)
        assert await kept(files, ("fonts", "logo.png")) is None
        assert await kept(files, ("assets", "main-Ab3_dE6h.js.map")) is None


async def test_a_page_comes_from_comfyui_or_not_at_all() -> None:
    async with keeping(Files({"/index.html": SCRIPT})) as files:
        assert await kept(files, ("index.html",)) is None


async def test_through_the_gate(tmp_path: Path) -> None:
    """Both tenants and the admin get the same file; a client without a key gets nothing, kept or not."""
    comfy = Files({"/assets/main-Ab3_dE6h.js": SCRIPT})
    path = "/assets/main-Ab3_dE6h.js"
    async with comfy_like(comfy) as url, running_gate(tmp_path, url) as gate:
        async with gate.call("GET", path, "alice") as response:
            assert await response.read() == SCRIPT
        await gate.gate.dependencies.web_files._tasks.finish()
        asked = len(comfy.asked)
        for who in ("alice", "mallory", "admin"):
            async with gate.call("GET", path, who, headers={"Accept-Encoding": "br"}) as response:
                assert response.headers["Content-Encoding"] == "br"
                assert response.headers["X-Request-Id"]
                assert brotli.decompress(await response.read()) == SCRIPT
            async with gate.call("HEAD", path, who, headers={"Accept-Encoding": "gzip"}) as response:
                assert response.headers["Content-Encoding"] == "gzip"
                assert int(response.headers["Content-Length"]) < len(SCRIPT)
                assert await response.read() == b""
        assert await gate.status("GET", path, None) == 401
        assert len(comfy.asked) == asked
