"""Routes of custom nodes that are the same for everybody: files of their pages, facts about models. What a call names stays where it is served."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from policy.call import Opaque, UpstreamCall
from policy.namespace import ROOT
from policy.rule_context import RuleInput
from policy.rules.catalog import HIDDEN_FOLDERS
from policy.violation import Reason, Violation

MAX_VALUE_LENGTH: Final = 4096
_DECODINGS: Final = 3
_EDGE: Final = r"[\\/,;|:&?=\s\"'()\[\]]"
_UP: Final = re.compile(rf"(?:^|{_EDGE})\.\.(?:$|{_EDGE})")
# Two slashes: what is left of "loras//etc" behind a folder that a pack splits off begins at the root.
_ABSOLUTE: Final = re.compile(r"(?:^|[,;|])\s*(?:[\\/]|~[\\/])|[\\/]\s*[\\/]")
# Windows joins what begins with a drive to no folder, with a slash behind it or without one, also where a pack has split a folder off before it.
_DRIVE: Final = re.compile(r"(?:^|[\\/,;|])\s*[A-Za-z]:")
_SCHEME: Final = re.compile(
    r"(?i)(?:^|[^a-z0-9+.-])(?:(?:[a-z][a-z0-9+.-]*:)?[\\/]{2}|(?:https?|ftp|file|data|javascript):)"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SPLIT: Final = re.compile(r"[\\/]")
# What would end an attribute or begin a tag where a pack writes the value into a page or a picture.
_MARKUP: Final = re.compile(r"[<>\"'`]")


@dataclass(frozen=True, slots=True)
class StaticFile:
    """query: the fields that the route reads; the others mean nothing for a file and stay here, with whatever secret is in them."""

    query: frozenset[str]

    def __call__(self, request: RuleInput) -> UpstreamCall:
        _check_parameters(request)
        # SECURITY: an answer runs on the gate's origin, and packs write the name of a file that is missing into it
        # (test_shared.py::test_a_name_that_a_pack_would_write_into_a_page_is_not_there).
        if any(map(_MARKUP.search, request.call.parameters.values())):
            raise _absent()
        pairs = [(name, value) for name, value in request.call.query if name in self.query]
        for name, value in pairs:
            check_reference(value, name)
            if _MARKUP.search(value):
                raise Violation(
                    Reason.QUERY_MALFORMED, f"`{name}` has a character here that it cannot have: < > \" ' `."
                )
        return _call(request, pairs)


@dataclass(frozen=True, slots=True)
class SharedRead:
    """suffixes: what the name of the file that is asked for may end in, any when there are none."""

    suffixes: tuple[str, ...] = ()

    def __call__(self, request: RuleInput) -> UpstreamCall:
        _check_parameters(request)
        last = request.call.segments[-1]
        if self.suffixes and not last.lower().endswith(self.suffixes):
            raise _absent()
        for name, value in request.call.query:
            check_reference(value, name)
            _check_hidden(value)
        return _call(request, list(request.call.query))


def _call(request: RuleInput, pairs: list[tuple[str, str]]) -> UpstreamCall:
    call = request.call
    return UpstreamCall(
        call.method, tuple(map(Opaque, call.segments)), tuple((name, Opaque(value)) for name, value in pairs)
    )


def _check_parameters(request: RuleInput) -> None:
    for name, value in request.call.parameters.items():
        check_reference(value, name)
        _check_hidden(value)


def check_reference(text: str, name: str) -> None:
    """What a pack may take for the name of a file below its own folders. name: of the field, for the sentence.

    SECURITY: packs join such texts to a folder, decode them again, split them at commas or fetch them, so everything is refused that
    would lead out of a folder or to another host in any of these readings (test_shared.py::test_a_reference_that_leads_elsewhere_is_refused).
    """
    if len(text) > MAX_VALUE_LENGTH:
        raise _malformed(name, f"it has more than {MAX_VALUE_LENGTH} characters")
    for _ in range(_DECODINGS):
        if _CONTROL.search(text):
            raise _malformed(name, "it has a control character")
        if _UP.search(text):
            raise _malformed(name, "'..' is not accepted")
        if _SCHEME.search(text):
            raise _malformed(name, "addresses of other hosts are not accepted")
        if _ABSOLUTE.search(text) or _DRIVE.search(text):
            raise _malformed(name, "a path does not begin at the root, or with a drive")
        decoded = unquote(text)
        if decoded == text:
            return
        text = decoded
    raise _malformed(name, "it is encoded too often")


def _check_hidden(text: str) -> None:
    """Raises Violation(not-found) for what is hidden from tenants, wherever a list or another decoding would put it."""
    for _ in range(_DECODINGS):
        for part in re.split(r"[,;|]", text):
            segments = [segment.strip() for segment in _SPLIT.split(part)]
            # "./configs" is that folder, and so is "configs." on Windows.
            first = next((name for segment in segments if (name := segment.rstrip(". "))), "")
            is_in_a_folder = len(segments) > 1 and ROOT in [segment.casefold() for segment in segments]
            if is_in_a_folder or first.casefold() in HIDDEN_FOLDERS or any(_is_hidden(segment) for segment in segments):
                raise _absent()
        text = unquote(text)


def _is_hidden(segment: str) -> bool:
    return len(segment) > 1 and segment.startswith(".") and segment != ".."


def _absent() -> Violation:
    return Violation(Reason.NOT_FOUND, "There is no such file or folder here.")


def _malformed(name: str, rule: str) -> Violation:
    return Violation(Reason.QUERY_MALFORMED, f"`{name}` is not accepted: {rule}.")
