"""Uploads: the plan for a multipart body that is rewritten as it streams. proxy/http/multipart_upload.py moves the bytes, and every decision is made here.

ComfyUI takes the fields in any order, so the file goes first, under a checked name, and the gate's own fields go last, when all of the
client's were read. A refusal in between ends the call upstream before its end, and nothing is stored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from policy.call import Opaque, UploadBody, UpstreamCall, UpstreamPath
from policy.document import parse_json
from policy.keyform import NOTHING_PRESENTED, check_names
from policy.makers import maker_of
from policy.namespace import (
    Folder,
    Namespace,
    check_file_name,
    is_shared,
    parse_folder,
    read_path,
    spell_name,
    split_annotation,
    split_path,
)
from policy.pictures import check_pixels
from policy.rule_context import OwnJobs, RuleInput
from policy.rules.files import shared_temp_file
from policy.rules.media import DEFAULT_UPLOAD_TYPES, check_media
from policy.upload_names import set_apart
from policy.violation import Reason, Violation

FILE_FIELD: Final = "image"
"""ComfyUI's name for the file, whatever it holds."""

MAX_FIELD_BYTES: Final = 8 * 1024
MAX_PARTS: Final = 16

FIELDS: Final = ("type", "subfolder", "overwrite", "original_ref")
"""What ComfyUI reads besides the file. Some clients send these as files too, and ComfyUI's word for a type must be a text."""

_YES = frozenset({"true", "1"})


class UploadKind(StrEnum):
    """ComfyUI's two upload routes. A mask is put on the alpha channel of a copy of an image that ComfyUI has."""

    IMAGE = "image"
    MASK = "mask"


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """What may be uploaded, and by whom. `begin` makes the state of one upload."""

    kind: UploadKind
    names: Namespace
    jobs: OwnJobs
    shared_inputs: tuple[str, ...]
    upload_types: frozenset[str] = DEFAULT_UPLOAD_TYPES
    max_picture_pixels: int = 100_000_000
    is_placed: bool = False
    """Whether there are several ComfyUIs: uploads are the first one's."""

    @property
    def is_mask(self) -> bool:
        return self.kind is UploadKind.MASK

    def begin(self) -> UploadSession:
        return UploadSession(self)


@dataclass(slots=True)
class UploadSession:
    """One upload, part by part as the parts come. Every method raises Violation; nothing may be sent after that."""

    plan: UploadPlan
    _values: dict[str, str] = field(default_factory=dict)
    _filename: str | None = None
    _is_set_apart: bool = False
    _part_count: int = 0

    def accept_field(self, name: str, value: str) -> None:
        """A part without a file name, or with one where a field is meant. Fields that ComfyUI does not read are passed over."""
        self._count_part()
        if name == FILE_FIELD:
            raise _malformed("The field `image` must be a file.")
        if len(value.encode("utf-8", "surrogatepass")) > MAX_FIELD_BYTES:
            raise _malformed(f"A field has at most {MAX_FIELD_BYTES} bytes.")
        if name not in FIELDS:
            return
        check_names(NOTHING_PRESENTED, (value,), f"in the field `{name}`")
        if self._values.get(name, value) != value:
            raise _malformed(f"Send the field `{name}` once.")
        self._values[name] = value
        # What is wrong with a field is told at once, and not after a long file.
        self._check_fields()

    def accept_file(self, name: str, filename: str, head: bytes) -> str:
        """A part with a file name; returns the name to send it under.

        filename: as ComfyUI would read it: `filename*` decoded (RFC 8187), and before `filename`. head: its first HEAD_BYTES.
        """
        self._count_part()
        if name != FILE_FIELD or self._filename is not None:
            raise _malformed("Send one file, in the field `image`.")
        check_names(NOTHING_PRESENTED, (filename,), "in the file's name")
        check_file_name(filename)
        types = self.plan.upload_types
        check_media(filename, head, types & {"mask"} if self.plan.kind is UploadKind.MASK else types)
        check_pixels(head, self.plan.max_picture_pixels)
        self._filename = filename
        self._check_fields()
        return spell_name(filename)

    @property
    def is_overwriting(self) -> bool:
        """Whether the file takes the place of one of its name, by the parts so far."""
        return self._values.get("overwrite") in _YES

    @property
    def keeps_name(self) -> bool:
        """Whether its name is its own, however many files have it."""
        return self.is_overwriting

    def set_apart(self, token: str) -> str:
        """The name to send the accepted file under instead, since ComfyUI would compare it with too many. token: that no other name has."""
        assert self._filename is not None, "a file was accepted"
        self._is_set_apart = True
        return set_apart(self._filename, token)

    def fields_to_send(self) -> tuple[tuple[str, str], ...]:
        """The fields that end the body, when all of the client's parts were read."""
        if self._filename is None:
            raise _malformed("Send a file in the field `image`.")
        if self._is_set_apart and self.is_overwriting:
            raise _malformed("Many files have this name: send the field `overwrite` before the file.")
        self._check_fields(is_last=True)
        subfolder = self.plan.names.folder_to_upstream(self._values.get("subfolder", ""))
        fields = [("subfolder", str(subfolder)), ("type", self._folder().value)]
        if self.is_overwriting:
            fields.append(("overwrite", "true"))
        if self.plan.kind is UploadKind.MASK:
            fields.append(("original_ref", self._original_to_upstream()))
        return tuple(fields)

    def _count_part(self) -> None:
        self._part_count += 1
        if self._part_count > MAX_PARTS:
            raise _malformed(f"An upload has at most {MAX_PARTS} parts.")

    def _folder(self) -> Folder:
        return parse_folder(self._values.get("type"), Folder.INPUT)

    def _check_fields(self, is_last: bool = False) -> None:
        """Everything that can be known of the parts so far; `type` may be the last to come."""
        folder = self._folder()
        subfolder = self._values.get("subfolder", "")
        self.plan.names.folder_to_upstream(subfolder)
        if self._filename is not None:
            path = f"{subfolder}/{self._filename}" if subfolder else self._filename
            upstream = self.plan.names.path_to_upstream(path)
            if self.plan.is_placed and folder is not Folder.INPUT and (maker := maker_of(upstream)):
                raise Violation(
                    Reason.NAME_REFUSED, f"What is in @{maker} is read where it was made: choose another folder."
                )
            is_input = folder is Folder.INPUT and (is_last or "type" in self._values)
            if is_input and is_shared("/".join(read_path(path)), self.plan.shared_inputs):
                raise Violation(Reason.NAME_REFUSED, "This name belongs to a shared input: choose another name.")
        if "original_ref" in self._values:
            self._original_to_upstream()

    def original(self) -> tuple[Folder, UpstreamPath] | None:
        """The image that a mask is for, None where it is no mask."""
        return self._find_original() if self.plan.is_mask else None

    def shared_original(self) -> UpstreamPath | None:
        """The image that a mask is for, where it is a temp file that lies among everybody's."""
        original = self.original()
        return None if original is None else shared_temp_file(self.plan.names, original)

    def _original_to_upstream(self) -> str:
        folder, path = self._find_original()
        where, name = split_path(path)
        return json.dumps({"filename": name, "subfolder": where, "type": folder.value})

    def _find_original(self) -> tuple[Folder, UpstreamPath]:
        """The image that a mask is for: ComfyUI copies its pixels and its texts, so it must be one that the tenant may read."""
        try:
            original = parse_json(self._values.get("original_ref", "").encode("utf-8", "replace"), max_depth=4)
        except Violation:
            original = None
        if not isinstance(original, dict):
            raise _malformed('A mask needs `original_ref`: {"filename": …, "subfolder": …, "type": …}.')
        filename, subfolder = original.get("filename"), original.get("subfolder") or ""
        kind = original.get("type")
        if not isinstance(filename, str) or not isinstance(subfolder, str) or not isinstance(kind, str | None):
            raise _malformed("`original_ref` must have texts for filename, subfolder and type.")
        bare, annotated = split_annotation(filename)
        folder = annotated or parse_folder(kind, Folder.OUTPUT)
        return folder, self.plan.names.readable_to_upstream(
            f"{subfolder}/{bare}" if subfolder else bare, folder, self.plan.shared_inputs, self.plan.jobs.has_temp_file
        )


def upload_image(request: RuleInput) -> UpstreamCall:
    """POST /upload/image."""
    return _upload(request, UploadKind.IMAGE)


def upload_mask(request: RuleInput) -> UpstreamCall:
    """POST /upload/mask."""
    return _upload(request, UploadKind.MASK)


def _upload(request: RuleInput, kind: UploadKind) -> UpstreamCall:
    context = request.context
    plan = UploadPlan(
        kind,
        context.names,
        context.jobs,
        context.shared_inputs,
        context.upload_types,
        context.max_picture_pixels,
        context.is_placed,
    )
    return UpstreamCall("POST", (Opaque("upload"), Opaque(kind.value)), body=UploadBody(plan))


def uploaded(value: Any, request: RuleInput) -> Any:
    """`{name, subfolder, type}`: ComfyUI may have chosen another name, as "photo (1).png"."""
    if not isinstance(value, dict) or value.get("type") not in tuple(Folder):
        return {}
    name, subfolder = value.get("name"), value.get("subfolder")
    if not isinstance(name, str) or not isinstance(subfolder, str) or "/" in name:
        return {}
    shown = request.context.names.path_to_client(f"{subfolder}/{name}")
    if not shown:
        return {}
    folder, _, shown_name = shown.rpartition("/")
    return {"name": shown_name, "subfolder": folder, "type": value["type"]}


def _malformed(message: str) -> Violation:
    return Violation(Reason.BODY_MALFORMED, message)
