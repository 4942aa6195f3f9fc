"""Uploads of assets: what may be uploaded under which name, judged part by part while the body streams (proxy/http/multipart_upload.py).

What is said of a file comes before it. The file goes to ComfyUI's upload route, into a folder of its own below FOLDER: so its name stays what it is,
whatever else the tenant has, and no upload of the tenant's that is none of an asset overwrites it by accident.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from policy.keyform import NOTHING_PRESENTED, check_names
from policy.namespace import Folder, Namespace, check_file_name, read_path, spell_name
from policy.pictures import check_pixels
from policy.rules.media import DEFAULT_UPLOAD_TYPES, check_media
from policy.v2.assets import AssetDetails
from policy.values import value
from policy.violation import Reason, Violation

FILE_FIELD: Final = "file"
FOLDER: Final = "api-v2"
"""In the tenant's own part of ComfyUI's input folder."""
MAX_FIELD_BYTES: Final = 8 * 1024
MAX_PARTS: Final = 64
MAX_TAGS: Final = 32
MAX_TAG_CHARACTERS: Final = 128
MAX_TAGS_BYTES: Final = 4096
"""Of all tags of an asset, in UTF-8: a record costs no storage, and a tenant has many."""
MIN_EXPIRES_IN_S: Final = 60
MAX_EXPIRES_IN_S: Final = 604_800

_HASH: Final = re.compile(r"blake3:[0-9a-f]{64}")
_UNSHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ONCE: Final = frozenset({"content_type", "file_path", "expected_hash", "expires_in"})
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
# RFC 9110, 8.3.1.
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}"
_MEDIA_TYPE: Final = re.compile(rf"{_WORD}/{_WORD}(?:[ \t]*;[ \t]*{_WORD}=(?:{_WORD}|\"[ !#-\[\]-~]{{0,100}}\"))*")
MAX_MEDIA_TYPE_CHARACTERS: Final = 255


@value
class AssetUpload:
    """name: of the file, the last segment of its path. expected_hash: None where the client names none."""

    details: AssetDetails
    name: str
    expected_hash: str | None = None


@dataclass(frozen=True, slots=True)
class AssetUploadPlan:
    """folder: below FOLDER, that no other upload has. `begin` makes the state of one upload."""

    names: Namespace
    folder: str
    upload_types: frozenset[str] = DEFAULT_UPLOAD_TYPES
    max_picture_pixels: int = 100_000_000
    is_mask: bool = False

    def begin(self) -> AssetUploadSession:
        return AssetUploadSession(self)


@dataclass(slots=True)
class AssetUploadSession:
    """One upload, part by part as the parts come. Every method raises Violation; nothing may be sent after that."""

    plan: AssetUploadPlan
    _values: dict[str, str] = field(default_factory=dict)
    _tags: dict[str, None] = field(default_factory=dict)
    _upload: AssetUpload | None = None
    _part_count: int = 0

    def accept_field(self, name: str, text: str) -> None:
        """A part without a file name. What the contract does not know is passed over."""
        self._count_part()
        if self._upload is not None:
            raise invalid("what is said of a file comes before it: send `file` as the last part", name[:64])
        if name == FILE_FIELD:
            raise invalid("`file` must be a file, with a file name", FILE_FIELD)
        if name == "tags":
            self._tags[text] = None
            read_tags(list(self._tags))
        elif name in _ONCE:
            if self._values.get(name, text) != text:
                raise invalid(f"send `{name}` once", name)
            self._values[name] = text
            # What is wrong with a field is told at once, and not after a long file.
            self._read(None)

    def accept_file(self, name: str, filename: str, head: bytes) -> str:
        """The part with the file; returns the name to send it under. head: its first HEAD_BYTES.

        filename: as its head says, which counts where `file_path` names no file: clients write it in ways that mean several names.
        """
        self._count_part()
        if name != FILE_FIELD or self._upload is not None:
            raise invalid("send one file, in the part `file`", name[:64])
        upload = self._read(filename)
        assert upload is not None, "with a name there is a file"
        check_media(upload.name, head, self.plan.upload_types)
        check_pixels(head, self.plan.max_picture_pixels)
        self._upload = upload
        return spell_name(upload.name)

    @property
    def keeps_name(self) -> bool:
        """Whatever others there are: it has a folder of its own."""
        return True

    def set_apart(self, token: str) -> str:
        raise AssertionError("it keeps its name")

    def fields_to_send(self) -> tuple[tuple[str, str], ...]:
        """The fields that end the body, when all of the client's parts were read."""
        if self._upload is None:
            raise invalid("send the file as the part `file`", FILE_FIELD)
        return (
            ("subfolder", str(self.plan.names.folder_to_upstream(f"{FOLDER}/{self.plan.folder}"))),
            ("type", Folder.INPUT.value),
        )

    @property
    def upload(self) -> AssetUpload:
        """What was said, when all of it was read."""
        assert self._upload is not None, "fields_to_send() comes first"
        return self._upload

    def _count_part(self) -> None:
        self._part_count += 1
        if self._part_count > MAX_PARTS:
            raise invalid(f"an upload has at most {MAX_PARTS} parts")

    def _read(self, filename: str | None) -> AssetUpload | None:
        """What was said so far; None where nothing names the file."""
        values = self._values
        placement = read_placement(values.get("file_path", ""), filename)
        expected = values.get("expected_hash")
        if expected is not None:
            read_hash(expected, "expected_hash")
        details = AssetDetails(
            "" if placement is None else placement[0],
            _read_content_type(values.get("content_type", "")),
            tuple(self._tags),
            _read_seconds_text(values.get("expires_in")),
        )
        return None if placement is None else AssetUpload(details, placement[1], expected)


def read_placement(file_path: str, filename: str | None) -> tuple[str, str] | None:
    """The path as it is shown, and the name of the file in it; None where neither names one. Raises Violation for what cannot be placed."""
    is_folder = not file_path or file_path.endswith(("/", "\\"))
    if is_folder and filename is None:
        _check_place(read_path(file_path))
        return None
    shown = f"{file_path}{filename}" if is_folder else file_path
    if is_folder:
        check_file_name(filename or "")
    check_names(NOTHING_PRESENTED, (shown,), "in `file_path`")
    segments = read_path(shown)
    if not segments:
        raise invalid("`file_path` names no file", "file_path")
    _check_place(segments[:-1])
    check_file_name(segments[-1])
    spell_name(segments[-1])
    return shown, segments[-1]


def _check_place(folders: tuple[str, ...]) -> None:
    place = folders[0].casefold() if folders else ""
    if place == "models":
        raise Violation(Reason.FILE_TYPE_REFUSED, "Models are the operator's to place: ask for the model.", "file_path")
    if place in (Folder.OUTPUT, Folder.TEMP):
        raise invalid(f"files are uploaded as inputs: leave `{place}/` out of `file_path`", "file_path")


def read_details(document: dict[str, Any]) -> AssetDetails:
    """The same of a JSON document. Raises Violation."""
    file_path = document.get("file_path")
    if file_path is None:
        file_path = ""
    if not isinstance(file_path, str):
        raise invalid("`file_path` is a text", "file_path")
    if file_path and read_placement(file_path, None) is None:
        raise invalid("`file_path` names no file", "file_path")
    expires_in = document.get("expires_in")
    if expires_in is not None and (not isinstance(expires_in, int) or isinstance(expires_in, bool)):
        raise _expires_in_invalid()
    return AssetDetails(file_path, tags=read_tags(document.get("tags")), expires_in_s=_read_seconds(expires_in))


def read_hash(text: Any, name: str) -> str:
    """name: of the field. Raises Violation."""
    if not isinstance(text, str) or not is_hash(text):
        raise invalid(f"`{name}` is `blake3:` and 64 hexadecimal digits in lower case", name)
    return text


def is_hash(text: str) -> bool:
    return _HASH.fullmatch(text) is not None


def read_tags(tags: Any) -> tuple[str, ...]:
    """Each once. Raises Violation."""
    if tags is None:
        return ()
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise invalid("`tags` is a list of texts", "tags")
    if any(len(tag) > MAX_TAG_CHARACTERS or _UNSHOWN.search(tag) for tag in tags):
        raise invalid(f"a tag has at most {MAX_TAG_CHARACTERS} characters, and no control characters", "tags")
    check_names(NOTHING_PRESENTED, tags, "in `tags`")
    found = tuple(dict.fromkeys(tags))
    if len(found) > MAX_TAGS:
        raise invalid(f"an asset has at most {MAX_TAGS} tags", "tags")
    if sum(len(tag.encode()) for tag in found) > MAX_TAGS_BYTES:
        raise invalid(f"the tags of an asset have at most {MAX_TAGS_BYTES} bytes in all", "tags")
    return found


def invalid(rule: str, field_name: str = "") -> Violation:
    return Violation(
        Reason.BODY_MALFORMED, f"This asset is not accepted: {rule}.", field_name, error_type="asset_invalid"
    )


def _read_content_type(text: str) -> str:
    """It is shown again; what a browser is told goes by the file's name (proxy/files/comfyui_folders.py)."""
    if text and (len(text) > MAX_MEDIA_TYPE_CHARACTERS or not _MEDIA_TYPE.fullmatch(text)):
        raise invalid("`content_type` is a media type, as image/png", "content_type")
    check_names(NOTHING_PRESENTED, (text,), "in `content_type`")
    return text


def _read_seconds_text(text: str | None) -> float | None:
    if text is not None and not _NUMBER.fullmatch(text):
        raise _expires_in_invalid()
    return _read_seconds(None if text is None else int(text))


def _read_seconds(seconds: int | None) -> float | None:
    if seconds is None:
        return None
    if not MIN_EXPIRES_IN_S <= seconds <= MAX_EXPIRES_IN_S:
        raise _expires_in_invalid()
    return float(seconds)


def _expires_in_invalid() -> Violation:
    return invalid(f"`expires_in` is a whole number of seconds, {MIN_EXPIRES_IN_S} to {MAX_EXPIRES_IN_S}", "expires_in")
