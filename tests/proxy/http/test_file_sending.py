"""Files as answers: validators before ranges (RFC 9110, 13.2.2), the bytes that were asked for, and none of what a link leads to."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import IO

import pytest
from multidict import CIMultiDict

from policy.violation import Reason, Violation
from proxy.http.file_sending import open_beside, open_file, send_file
from proxy.http.listener import Listener
from proxy.http.replies import FileReply
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from tests.programs import path_of
from tests.proxy.http.requests import served, talking
from tests.wire.raw import RawAnswer, request, send

CONTENT = bytes(range(100))
MODIFIED_S = 1_700_000_000
EARLIER, SAME, LATER = (formatdate(MODIFIED_S + more, usegmt=True) for more in (-60, 0, 60))


@dataclass
class Served:
    file: Path
    listener: Listener
    records: list[RequestRecord]

    @property
    def etag(self) -> str:
        found = self.file.stat()
        return f'"{found.st_mtime_ns:x}-{found.st_size:x}"'

    async def get(self, *lines: str, method: str = "GET") -> RawAnswer:
        said = [line.replace("ETAG", self.etag) for line in lines]
        return await send(self.listener.url, request("/", None, *said, method=method))


@asynccontextmanager
async def serving(file: Path) -> AsyncIterator[Served]:
    records = []

    async def answer(request: Request) -> None:
        record = RequestRecord.begin(request, "::1")
        records.append(record)
        fields = {"Content-Type": "image/png", "Content-Disposition": "inline", "Cache-Control": "private"}
        try:
            await send_file(request, record, FileReply(file, CIMultiDict(fields)))
        except Violation as error:
            await request.send(404, (("X-Reason", error.reason),), b"")

    async with served(answer) as listener:
        yield Served(file, listener, records)


@pytest.fixture
async def picture(tmp_path: Path) -> AsyncIterator[Served]:
    file = tmp_path / "a.png"
    file.write_bytes(CONTENT)
    os.utime(file, (MODIFIED_S, MODIFIED_S))
    async with serving(file) as found:
        yield found


async def test_a_whole_file(picture: Served) -> None:
    answer = await picture.get()
    assert (answer.status, answer.body) == (200, CONTENT)
    told = dict(answer.headers)
    expected = {
        "Content-Type": "image/png",
        "Content-Length": "100",
        "ETag": picture.etag,
        "Last-Modified": SAME,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private",
    }
    assert expected.items() <= told.items()
    assert "Content-Range" not in told
    assert (picture.records[0].status, picture.records[0].sent_bytes) == (200, 100)


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("0-0", 0, 0),
        ("0-", 0, 99),
        ("10-19", 10, 19),
        ("99-", 99, 99),
        ("90-1000", 90, 99),
        ("-1", 99, 99),
        ("-30", 70, 99),
        ("-1000", 0, 99),
        (f"0-{'9' * 18}", 0, 99),
    ],
)
async def test_one_range(picture: Served, wanted: str, start: int, end: int) -> None:
    answer = await picture.get(f"Range: bytes={wanted}")
    assert (answer.status, answer.body) == (206, CONTENT[start : end + 1])
    assert answer.all("Content-Range") == [f"bytes {start}-{end}/100"]
    assert answer.all("Content-Length") == [str(end - start + 1)]
    assert picture.records[0].sent_bytes == end - start + 1


@pytest.mark.parametrize("wanted", ["100-", "100-200", f"{'9' * 18}-", "-0"])
async def test_a_range_beyond_the_file(picture: Served, wanted: str) -> None:
    answer = await picture.get(f"Range: bytes={wanted}")
    assert (answer.status, answer.body) == (416, b"")
    assert answer.all("Content-Range") == ["bytes */100"]
    assert answer.all("Content-Type") == []


@pytest.mark.parametrize(
    "lines",
    [
        ["Range: bytes=0-1,5-6"],
        ["Range: bytes=5-4"],
        ["Range: bytes=-"],
        ["Range: bytes="],
        ["Range: bytes"],
        ["Range: bytes=a-b"],
        ["Range: bytes=+1-2"],
        ["Range: bytes=1-2-3"],
        ["Range: bytes= 1-2"],
        ["Range: bytes=--1"],
        [f"Range: bytes={'9' * 19}-"],
        ["Range: bytes=\u0661-\u0662"],
        ["Range: pieces=0-1"],
        ["Range: bytes=0-1", "Range: bytes=0-1"],
    ],
)
async def test_what_is_no_range_or_several_is_the_whole_file(picture: Served, lines: list[str]) -> None:
    """RFC 9110, 14.2. Several would be a document in pieces, which may be larger than the file."""
    answer = await picture.get(*lines)
    assert (answer.status, answer.body) == (200, CONTENT)


@pytest.mark.parametrize("lines", [[], ["Range: bytes=0-1"], ["Range: bytes=100-"]])
async def test_a_head_is_of_the_whole_file(picture: Served, lines: list[str]) -> None:
    """RFC 9110, 14.2: a range is of a GET alone."""
    answer = await picture.get(*lines, method="HEAD")
    assert (answer.status, answer.body, answer.all("Content-Length")) == (200, b"", ["100"])


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["If-Match: ETAG"], 200),
        (['If-Match: "x", ETAG'], 200),
        (["If-Match: *"], 200),
        (['If-Match: "x"'], 412),
        (["If-Match: W/ETAG"], 412),
        (['If-Match: "x"', f"If-Unmodified-Since: {LATER}"], 412),
        (["If-Match: ETAG", f"If-Unmodified-Since: {EARLIER}"], 200),
        ([f"If-Unmodified-Since: {EARLIER}"], 412),
        ([f"If-Unmodified-Since: {SAME}"], 200),
        (["If-Unmodified-Since: some day"], 200),
        (["If-None-Match: ETAG"], 304),
        (["If-None-Match: W/ETAG"], 304),
        (['If-None-Match: "x",ETAG'], 304),
        (["If-None-Match: *"], 304),
        (['If-None-Match: "x"'], 200),
        (['If-None-Match: "x"', f"If-Modified-Since: {LATER}"], 200),
        ([f"If-Modified-Since: {SAME}"], 304),
        ([f"If-Modified-Since: {LATER}"], 304),
        ([f"If-Modified-Since: {EARLIER}"], 200),
        (["If-Modified-Since: some day"], 200),
        (['If-Match: "x"', "If-None-Match: ETAG"], 412),
        (["If-None-Match: ETAG", "Range: bytes=0-1"], 304),
        (["If-None-Match: ETAG", "Range: bytes=100-"], 304),
        (['If-Match: "x"', "Range: bytes=0-1"], 412),
        (["If-Match: ETAG", "Range: bytes=0-1"], 206),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_validators_come_first(picture: Served, lines: list[str], status: int, method: str) -> None:
    answer = await picture.get(*lines, method=method)
    assert answer.status == (200 if status == 206 and method == "HEAD" else status)
    assert answer.all("ETag") == [picture.etag]
    assert answer.body == (CONTENT[: 2 if status == 206 else 100] if method == "GET" and status < 300 else b"")
    if status in (304, 412):
        assert answer.all("Content-Type") == answer.all("Content-Disposition") == []
        assert answer.all("Content-Length") == ([] if status == 304 else ["0"])


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("If-Range: ETAG", 206),
        ("If-Range: W/ETAG", 200),
        ('If-Range: "x"', 200),
        ("If-Range: *", 200),
        (f"If-Range: {SAME}", 206),
        (f"If-Range: {LATER}", 200),
        (f"If-Range: {EARLIER}", 200),
        ("If-Range: some day", 200),
    ],
)
async def test_a_range_of_the_file_as_it_was(picture: Served, line: str, status: int) -> None:
    """RFC 9110, 13.1.5: compared strongly, and a date must be the same."""
    answer = await picture.get("Range: bytes=0-1", line)
    assert (answer.status, answer.body) == (status, CONTENT[:2] if status == 206 else CONTENT)
    beyond = await picture.get("Range: bytes=100-", line)
    assert beyond.status == (416 if status == 206 else 200)


async def test_a_file_that_changes_has_another_tag(picture: Served) -> None:
    before = picture.etag
    picture.file.write_bytes(CONTENT + b"x")
    assert (await picture.get(f"If-None-Match: {before}")).status == 200
    assert (await picture.get("Range: bytes=0-1", f"If-Range: {before}")).status == 200


@pytest.mark.parametrize("lines", [[], ["Range: bytes=0-"], ["Range: bytes=-5"]])
async def test_an_empty_file(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "empty").touch()
    async with serving(tmp_path / "empty") as served_file:
        answer = await served_file.get(*lines)
    assert (answer.status, answer.body, answer.all("Content-Length")) == (416 if lines else 200, b"", ["0"])


async def test_a_large_file_comes_whole_and_in_parts(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(os.urandom(3_000_000))
    async with serving(file) as served_file:
        for options, expected in ([], slice(None)), (["-r", "1000000-1999999"], slice(1_000_000, 2_000_000)):
            command = [path_of("curl"), "-sS", "--max-time", "240", *options, served_file.listener.url]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
            assert done.stdout == file.read_bytes()[expected]


async def test_a_file_that_becomes_shorter_is_never_a_whole_one(tmp_path: Path) -> None:
    """Its length has been told, and what is missing is nobody's to make up."""
    file = tmp_path / "shrinking"
    file.write_bytes(bytes(32 * 1024**2))
    async with serving(file) as served_file, talking(served_file.listener) as (reader, writer):
        writer.write(request("/", None).replace(b"Connection: close\r\n", b""))
        await reader.readuntil(b"\r\n\r\n")
        os.truncate(file, 1000)
        read = 0
        try:
            while data := await reader.read(1024**2):
                read += len(data)
        except ConnectionError:
            pass
        assert read < 32 * 1024**2


@pytest.mark.parametrize("lines", [[], ["Range: bytes=0-1"], ["If-None-Match: *"]])
async def test_a_link_is_as_what_is_not_there(tmp_path: Path, lines: list[str]) -> None:
    """The folders were looked at before, and it has come since."""
    (tmp_path / "neighbours.png").write_bytes(b"secret")
    (tmp_path / "link.png").symlink_to(tmp_path / "neighbours.png")
    for name in ("link.png", "gone.png"):
        async with serving(tmp_path / name) as served_file:
            answer = await send(served_file.listener.url, request("/", None, *lines))
        assert (answer.status, answer.all("X-Reason"), answer.all("ETag")) == (404, [Reason.NOT_FOUND], [])


async def test_files_are_closed(picture: Served) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for lines in ([], ["Range: bytes=0-1"], ["If-None-Match: ETAG"], ["Range: bytes=100-"]):
        await picture.get(*lines)
    assert len(os.listdir("/proc/self/fd")) <= before + 1


async def test_what_is_opened_for_a_client_that_left_meanwhile_is_closed(tmp_path: Path) -> None:
    file, may_open, closed = tmp_path / "a", threading.Event(), asyncio.Event()
    file.write_bytes(b"x")

    def make() -> IO[bytes]:
        may_open.wait()
        return open_file(file)

    made: list[IO[bytes]] = []

    def close(opened: IO[bytes]) -> None:
        made.append(opened)
        opened.close()
        closed.set()

    asking = asyncio.ensure_future(open_beside(make, close))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    may_open.set()
    await closed.wait()
    assert made[0].closed


async def test_what_cannot_be_opened_is_told_to_who_waits_and_to_nobody_else(tmp_path: Path) -> None:
    opening = partial(open_file, tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        await open_beside(opening, lambda made: made.close())
    asking = asyncio.ensure_future(open_beside(opening, lambda made: made.close()))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
