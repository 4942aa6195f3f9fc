"""A call of a function, as a client of the gate makes it: files first, then the call, then looking until it is over, then the results."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson
import yarl

from proxy.commands.gate_address import read_gate_address
from proxy.commands.terminal import progress_line

_LOOK_S: Final = 0.5
_PIECE_BYTES: Final = 256 * 1024
_ENDED: Final = frozenset({"succeeded", "failed", "canceled"})


class CallFailed(Exception):
    """In words for a person."""


async def call_function(url: str, key: str, name: str, given: Sequence[str], folder: Path) -> list[Path]:
    """given: NAME=VALUE each; a value that begins with "@" is a file. → the files that were saved. Raises CallFailed."""
    try:
        read_gate_address(url)
    except ValueError as mistake:
        raise CallFailed(f"--url: {mistake}") from None
    async with _client(url, key) as client:
        function = await client.json("GET", f"gate/functions/{quote(name, safe='')}")
        arguments = await client.arguments(function["arguments"]["properties"], given)
        job = await client.json("POST", f"gate/run/{quote(name, safe='')}", json=arguments)
        job = await client.until_over(job["id"])
        if job["status"] != "succeeded":
            error = job.get("error") or {}
            raise CallFailed(f"The job has {job['status']}. {error.get('message') or ''}".strip())
        saved = [await client.save(output, folder) for output in job["outputs"] if not output["error"]]
        if errors := [output["error"] for output in job["outputs"] if output["error"]]:
            raise CallFailed(" ".join([*errors, "Saved:" if saved else "", *map(str, saved)]).strip())
        return saved


class _Client:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def json(self, method: str, path: str, **more: Any) -> Any:
        async with self._session.request(method, f"{self._url}/{path}", **more) as answer:
            body = await answer.read()
            if answer.status >= 400:
                raise CallFailed(_words(answer.status, body))
            return orjson.loads(body)

    async def arguments(self, properties: Mapping[str, Any], given: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for text in given:
            name, is_given, written = text.partition("=")
            if not is_given:
                raise CallFailed(f"Write arguments as NAME=VALUE: {text!r} has no '='.")
            if written.startswith("@"):
                found[name] = await self._upload(Path(written[1:]))
            else:
                found[name] = _read(written, properties.get(name, {}))
        return found

    async def _upload(self, file: Path) -> str:
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("content_type", mimetypes.guess_type(file.name)[0] or "application/octet-stream")
        form.add_field("file_path", file.name)
        try:
            opened = file.open("rb")
        except OSError as error:
            raise CallFailed(f"{file} cannot be read: {error.strerror or error}") from None
        with opened:
            form.add_field("file", opened, filename=file.name)
            asset = await self.json("POST", "api/v2/assets", data=form)
        return str(asset["id"])

    async def until_over(self, prompt_id: str) -> Any:
        with progress_line() as tell:
            while True:
                job = await self.json("GET", f"gate/jobs/{prompt_id}")
                if job["status"] in _ENDED:
                    return job
                tell(_how_far(job))
                await asyncio.sleep(_LOOK_S)

    async def save(self, output: Mapping[str, Any], folder: Path) -> Path:
        """As the function gives it; one that is still being made is asked for again."""
        file = _free_name(folder / Path(str(output["name"])).name)
        # Below the address that was given, by which the gate is reached from here: it may know itself by another one.
        address = self._url + output["url"][output["url"].index("/gate/jobs/") :]
        while True:
            async with self._session.get(yarl.URL(address, encoded=True)) as answer:
                if answer.status == 429:
                    await asyncio.sleep(float(answer.headers["Retry-After"]))
                    continue
                if answer.status != 200:
                    raise CallFailed(_words(answer.status, await answer.read()))
                folder.mkdir(parents=True, exist_ok=True)
                with file.open("xb") as opened:
                    async for piece in answer.content.iter_chunked(_PIECE_BYTES):
                        opened.write(piece)
                return file


@asynccontextmanager
async def _client(url: str, key: str) -> AsyncIterator[_Client]:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        try:
            yield _Client(session, url)
        except aiohttp.ClientError as error:
            raise CallFailed(f"The gate does not answer at {url} ({error}).") from None


def _read(text: str, schema: Mapping[str, Any]) -> Any:
    """A value as its parameter means it; what does not fit is the gate's to refuse."""
    if schema.get("type") == "string":
        return text
    try:
        read = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return read if not isinstance(read, dict | list) else text


def _how_far(job: Mapping[str, Any]) -> str:
    progress = job.get("progress")
    if job["status"] == "queued":
        return f"waits, {job.get('queue_position') or '?'}. of your jobs"
    if not progress:
        return str(job["status"])
    node = progress.get("current_node_class") or ""
    return (
        f"{job['status']} {progress['value']:.0%}, {progress['nodes_done']} of {progress['nodes_total']} nodes {node}"
    )


def _words(status: int, body: bytes) -> str:
    try:
        message = orjson.loads(body)["error"]["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = ""
    return f"The gate answers {status}. {message}".strip()


def _free_name(file: Path) -> Path:
    """Nothing that is there is overwritten."""
    count, free = 1, file
    while free.exists():
        count += 1
        free = file.with_stem(f"{file.stem} ({count})")
    return free
