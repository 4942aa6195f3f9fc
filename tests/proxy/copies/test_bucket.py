"""The bucket: what it stores of a file, what it says when it does not, and that a large file takes little memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from proxy.config import Config
from proxy.config.reader import check_config
from proxy.copies import bucket as module
from proxy.copies.bucket import Bucket, BucketFailed, ObjectGone, note_of
from proxy.copies.opening import find_mistakes, open_bucket
from tests.proxy.copies.s3 import S3Server, credentials, storage
from tests.proxy.upstreams import serving

NAME = "alice/a-job/a-copy/x.png"


def config(folder: Path, **more: Any) -> Config:
    return check_config({"storage": more}, folder / "config.toml", environ={})


def opened(folder: Path, url: str, endpoint: str | None = None, **more: Any) -> Bucket:
    if endpoint is not None:
        more |= {"endpoint": endpoint, "credentials_file": str(credentials(folder))}
    loaded = config(folder, url=url, **more)
    assert find_mistakes(loaded) == []
    return open_bucket(loaded)


@pytest.fixture
def bucket(tmp_path: Path, s3: S3Server) -> Bucket:
    return opened(tmp_path, "s3://media/outputs", s3.url)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def put(bucket: Bucket, data: bytes = b"bytes", key: str = NAME, name: str = "x.png") -> None:
    await bucket.put(key, pieces(data), len(data), "image/png", name)


async def test_an_object_is_stored_read_and_deleted(bucket: Bucket, s3: S3Server) -> None:
    await put(bucket, b"0123456789")
    assert s3.objects() == {f"media/outputs/{NAME}": b"0123456789"}
    assert await bucket.size_of(NAME) == 10
    assert await bucket.read(NAME, 0, 10, 10) == b"0123456789"
    await bucket.delete(NAME)
    await bucket.delete(NAME)
    with pytest.raises(ObjectGone):
        await bucket.size_of(NAME)


@pytest.mark.parametrize("size", [0, 1, module.PART_BYTES, module.PART_BYTES + 1, 3 * module.PART_BYTES])
async def test_every_size_is_stored_whole(bucket: Bucket, s3: S3Server, size: int) -> None:
    data = blake3(str(size).encode()).digest(size)
    await bucket.put(NAME, pieces(*(data[at : at + 700_001] for at in range(0, size, 700_001))), size, "image/png", "x")
    assert list(s3.objects().values()) == [data]


async def test_what_breaks_off_is_not_there_at_all(bucket: Bucket, s3: S3Server) -> None:
    async def broken() -> AsyncIterator[bytes]:
        for _ in range(3 * module.PART_BYTES // 1024**2):
            yield bytes(1024**2)
        raise ValueError("the original ended")

    with pytest.raises(ValueError, match="the original ended"):
        await bucket.put(NAME, broken(), 4 * module.PART_BYTES, "image/png", "x.png")
    assert s3.objects() == {}


async def test_an_object_of_another_size_is_no_copy(bucket: Bucket) -> None:
    with pytest.raises(BucketFailed, match="it has 3 bytes there, of 4"):
        await bucket.put(NAME, pieces(b"abc"), 4, "image/png", "x.png")
    await put(bucket, b"other")
    with pytest.raises(BucketFailed, match="it has 5 bytes there, of 4"):
        await bucket.read(NAME, 0, 4, 4)


@pytest.mark.parametrize(
    ("name", "content_type", "field"),
    [
        ("x.png", "image/png", 'inline; filename="x.png"'),
        ("x.svg", "application/octet-stream", 'attachment; filename="x.svg"'),
        ("x.html", "application/octet-stream", 'attachment; filename="x.html"'),
    ],
)
async def test_what_could_run_is_only_saved(bucket: Bucket, name: str, content_type: str, field: str) -> None:
    import aiohttp

    await bucket.put(NAME, pieces(b"<svg onload='1'/>"), 17, "image/png", name)
    [link] = await bucket.sign([NAME], 60)
    async with aiohttp.ClientSession() as session, session.get(link) as answer:
        assert (answer.headers["Content-Type"], answer.headers["Content-Disposition"]) == (content_type, field)


async def test_links_are_signed_for_where_clients_reach_it(tmp_path: Path, s3: S3Server) -> None:
    bucket = opened(tmp_path, "s3://media", s3.url, public_endpoint="https://media.example.com")
    await put(bucket)
    [link] = await bucket.sign([NAME], 60)
    assert link.startswith(f"https://media.example.com/media/{NAME}?X-Amz-Algorithm=")
    assert await bucket.sign([], 60) == []


async def test_a_folder_takes_copies_and_has_no_links(tmp_path: Path) -> None:
    folder = tmp_path / "out puts"
    folder.mkdir()
    bucket = opened(tmp_path, f"file://{folder}".replace(" ", "%20"))
    assert not bucket.has_links
    await put(bucket, bytes(3 * module.PART_BYTES))
    assert (folder / NAME).stat().st_size == 3 * module.PART_BYTES
    assert await bucket.read(NAME, 5, 2, 3 * module.PART_BYTES) == bytes(2)
    assert await bucket.sign([NAME], 60) == []
    await bucket.delete(NAME)
    assert not (folder / NAME).exists()


@pytest.mark.parametrize("status", [403, 500, 503])
async def test_a_server_that_refuses_is_told(tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiohttp import web

    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response(status=status, text="<?xml version='1.0'?><Error><Code>Refused</Code></Error>")

    monkeypatch.setattr("proxy.copies.opening._RETRY", {"max_retries": 0})
    async with serving(refuse) as url:
        bucket = opened(tmp_path, "s3://media", url)
        with pytest.raises(BucketFailed) as told:
            await put(bucket)
    assert "\n" not in str(told.value)
    assert "(Refused)" in str(told.value)


async def test_a_server_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiohttp import web

    async def silent(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError("never")

    monkeypatch.setattr(module, "CALL_LIMIT_S", 0.2)
    async with serving(silent) as url:
        bucket = opened(tmp_path, "s3://media", url)
        with pytest.raises(BucketFailed, match="did not end within"):
            await put(bucket)


async def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.copies.opening._RETRY", {"max_retries": 0})
    bucket = opened(tmp_path, "s3://media", "http://127.0.0.1:1")
    with pytest.raises(BucketFailed):
        await bucket.size_of(NAME)


def test_what_goes_wrong_is_told_in_one_line_without_secrets() -> None:
    told = note_of(
        ValueError(
            "Generic S3 error: GET http://h/b/k?X-Amz-Signature=abc 403\x1b[31m: <?xml version='1.0'?>\n<Error><Code>Denied</Code>"
            "<Message>no</Message></Error>\n\nDebug source:\nsecret"
        )
    )
    assert told == "Generic S3 error: GET http://h/b/k 403 [31m (Denied: no)"
    azure = note_of(
        ValueError(
            "Generic Azure error: PUT https://a.example/c/k?sv=1&sig=SECRET in 3ms - 403\n\nDebug source:\nsig=SECRET"
        )
    )
    assert azure == "Generic Azure error: PUT https://a.example/c/k in 3ms - 403"
    assert note_of(ValueError("GET REDACTED in 537.57µs - 500")) == "GET REDACTED in 537.57us - 500"
    assert note_of(ValueError("x" * 999)) == "x" * module.MAX_NOTE
    assert note_of(ValueError()) == "ValueError"


def storage_mistakes(folder: Path, **more: Any) -> list[str]:
    return [str(mistake) for mistake in find_mistakes(config(folder, **more))]


def test_a_missing_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.copies.opening.find_spec", lambda name: None)
    [told] = storage_mistakes(tmp_path, url="s3://media")
    assert "pip install 'comfygate[storage]'" in told
    assert storage_mistakes(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "text", "words"),
    [
        ("s3://media", None, "cannot be read"),
        ("s3://media", "", "must have a section [default]"),
        ("s3://media", "no ini", "must have a section [default]"),
        ("s3://media", "[default]\naws_access_key_id = a\n", "must have a section [default]"),
        ("s3://media", "x" * 70_000, "too large"),
        ("s3://media", "\xff", "is no text"),
        ("gs://media", "{}", "is no key of a service account"),
        ("gs://media", "no json", "is no key of a service account"),
        ("az://account/media", "[default]\nother = 1\n", "account_key or sas_token"),
    ],
)
def test_credentials_that_are_none(tmp_path: Path, url: str, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "a.credentials").write_bytes(text.encode("latin-1"))
    [told] = storage_mistakes(tmp_path, url=url, credentials_file="a.credentials")
    assert told.startswith("storage.credentials_file: ")
    assert words in told


def test_an_account_of_azure_and_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.credentials").write_text("[default]\naccount_key = c2VjcmV0\n")
    assert storage_mistakes(tmp_path, url="az://account/media/prefix", credentials_file="a.credentials") == []
    (tmp_path / "b.credentials").write_text("[default]\naccount_key = no base64 !\n")
    assert len(storage_mistakes(tmp_path, url="az://account/media", credentials_file="b.credentials")) == 1
    [told] = storage_mistakes(tmp_path, url=f"file://{tmp_path / 'none'}")
    assert "is no folder that the gate may write to" in told


def test_the_section_of_the_tests_is_one(tmp_path: Path, s3: S3Server) -> None:
    assert s3.url in storage(s3, tmp_path)
