"""What a job shows as its results: files, and texts. Of a node that has just run, and of a history entry, in the tenant's names."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from policy.namespace import Folder
from policy.principal import TenantId
from policy.v2.jobs import JobError
from policy.values import value

MAX_OUTPUTS: Final = 1000
"""Of one job; what is more stands in its history alone."""
MAX_TEXT_BYTES: Final = 64 * 1024
"""Of one text, in UTF-8. A longer one stands in the history alone."""
MAX_TEXTS_BYTES: Final = 256 * 1024
"""Of all texts of a job."""
MAX_ERROR_CHARACTERS: Final = 4096
TEXT_TYPE: Final = "text/plain; charset=utf-8"
UNKNOWN_TYPE: Final = "application/octet-stream"

CONTENT_TYPES: Final[Mapping[str, str]] = {
    ".png": "image/png",
    ".apng": "image/apng",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jpe": "image/jpeg",
    ".jfif": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".svg": "image/svg+xml",
    ".exr": "image/x-exr",
    ".hdr": "image/vnd.radiance",
    ".jxl": "image/jxl",
    ".heic": "image/heic",
    ".psd": "image/vnd.adobe.photoshop",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".avi": "video/x-msvideo",
    ".ogv": "video/ogg",
    ".mpg": "video/mpeg",
    ".mpeg": "video/mpeg",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".obj": "model/obj",
    ".stl": "model/stl",
    ".txt": "text/plain",
    ".csv": "text/csv",
    ".json": "application/json",
    ".zip": "application/zip",
    ".pdf": "application/pdf",
}
"""By extension: the same on every machine."""
_KINDS: Final = frozenset({"image", "video", "audio"})
_KINDS_BY_KEY: Final = {"latents": "latent"}
_SPACE: Final = uuid.UUID("2b1a8f6e-5d0c-5b7e-9f43-0c6f6f1f5a11")
_CODES: Final = {
    "node": "node_execution_error",
    "out-of-memory": "out_of_memory",
    "comfyui-gone": "lost",
    "job-seconds": "deadline_exceeded",
    "validation": "invalid_workflow",
}
_MESSAGES: Final = {
    "out_of_memory": "The GPU's memory did not suffice, also when it was tried again.",
    "lost": "ComfyUI went away while this job ran.",
    "deadline_exceeded": "This job ran for longer than a job of yours may, and was stopped.",
    "invalid_workflow": "ComfyUI does not take this workflow any more.",
}
_FAILED: Final = "This job failed."


@value
class Shown:
    """One result of a node. place: among those of its node. folder, path: where ComfyUI has the file, in the tenant's own names; None and "" for a text.

    kind: image, video, audio, text, latent or file; the contract knows no others.
    """

    node_id: str
    place: int
    kind: str
    content_type: str
    folder: Folder | None = None
    path: str = ""
    text: str = ""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2] if self.folder is not None else f"{self.node_id}_{self.place}.txt"


def find_results(outputs: Any) -> list[Shown]:
    """All results of a job. outputs: of its history entry, by node. At most MAX_OUTPUTS, and texts of MAX_TEXTS_BYTES in all."""
    found: list[Shown] = []
    text_bytes = 0
    for node_id, output in outputs.items() if isinstance(outputs, Mapping) else ():
        for shown in find_shown(node_id, output):
            text_bytes += len(shown.text.encode())
            if len(found) < MAX_OUTPUTS and (not shown.text or text_bytes <= MAX_TEXTS_BYTES):
                found.append(shown)
    return found


def find_shown(node_id: str, output: Any) -> list[Shown]:
    """Results of one node. output: as its client sees it (policy.rules.results.output_to_client): what is not the tenant's is left out already."""
    items = _items(output) if isinstance(output, Mapping) and "\0" not in node_id else ()
    shown = (
        _text(node_id, place, item) if isinstance(item, str) else _file(node_id, place, key, item)
        for place, (key, item) in enumerate(items)
    )
    return [each for each in shown if each is not None][:MAX_OUTPUTS]


def _items(output: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, listed in output.items():
        for item in listed if isinstance(listed, list) else ():
            is_text = key == "text" and isinstance(item, str)
            if is_text or (isinstance(item, Mapping) and isinstance(item.get("filename"), str)):
                yield key, item


def _text(node_id: str, place: int, text: str) -> Shown | None:
    if len(text.encode()) > MAX_TEXT_BYTES:
        return None
    return Shown(node_id, place, "text", TEXT_TYPE, text=text)


def _file(node_id: str, place: int, key: str, item: Mapping[str, Any]) -> Shown | None:
    """None for a file of the input folder, which no job makes."""
    subfolder, filename, folder = item.get("subfolder"), item["filename"], item.get("type")
    if folder not in (Folder.OUTPUT, Folder.TEMP):
        return None
    path = f"{subfolder}/{filename}" if isinstance(subfolder, str) and subfolder else filename
    content_type = content_type_of(path)
    return Shown(node_id, place, kind_of(content_type, key), content_type, Folder(folder), path)


def content_type_of(name: str) -> str:
    stem, dot, extension = name.rpartition("/")[2].rpartition(".")
    return CONTENT_TYPES.get(dot + extension.lower(), UNKNOWN_TYPE) if stem else UNKNOWN_TYPE


def kind_of(content_type: str, key: str) -> str:
    """key: under which ComfyUI lists the file. Its own names say little: animated pictures stand under `images`, films under `gifs`."""
    family = content_type.partition("/")[0]
    return family if family in _KINDS else _KINDS_BY_KEY.get(key, "file")


def asset_id_of(tenant: TenantId, prompt_id: str, shown: Shown) -> str:
    """The same for the same result, whoever asks and whenever: a UUID (RFC 9562, 5.5)."""
    folder = "" if shown.folder is None else shown.folder.value
    return str(uuid.uuid5(_SPACE, "\0".join((tenant, prompt_id, shown.node_id, folder, shown.path, str(shown.place)))))


def failure_of_entry(entry: Any, error: str) -> JobError:
    """How a job failed. entry: of its history, as its client sees it: without the server's paths. error: its class (proxy.jobs.job.Job.error)."""
    code = _CODES.get(error, "node_execution_error")
    data = _error_of(entry)
    message = data.get("exception_message")
    told = message.strip()[:MAX_ERROR_CHARACTERS] if isinstance(message, str) else ""
    return JobError(
        code=code,
        message=told or _MESSAGES.get(code, _FAILED),
        node_id=_text_or_none(data.get("node_id")),
        class_type=_text_or_none(data.get("node_type")),
    )


def _error_of(entry: Any) -> Mapping[str, Any]:
    status = entry.get("status") if isinstance(entry, Mapping) else None
    messages = status.get("messages") if isinstance(status, Mapping) else None
    for message in messages if isinstance(messages, list) else ():
        match message:
            case ["execution_error", dict() as data]:
                return data
    return {}


def _text_or_none(found: Any) -> str | None:
    return found if isinstance(found, str) and found else None
