"""Routes of custom nodes that read a file as `/view` names it, and make something of it: previews of video and sound."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from policy.call import Opaque, UpstreamCall, UpstreamPath, UpstreamText
from policy.namespace import ROOT, Folder, check_file_name, parse_folder, read_path, split_annotation, split_path
from policy.rule_context import RuleInput
from policy.rules.files import shared_temp_file
from policy.violation import Reason, Violation

NAMES: Final = frozenset({"filename", "subfolder", "type"})
# SECURITY: packs hand these on to other programs, for which more than a number or a word means something
# (test_own_file.py::test_a_field_that_could_be_more_than_a_number_or_a_word_is_refused).
_PLAIN: Final = re.compile(r"(?![-/])[A-Za-z0-9_.?/-]{0,64}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class OwnFile:
    """refuse: values of other fields that are not accepted, by the field."""

    refuse: Mapping[str, tuple[str, ...]]

    def __call__(self, request: RuleInput) -> UpstreamCall:
        call = request.call
        query: list[tuple[str, UpstreamText]] = []
        file = None
        if call.first("filename"):
            folder, path = _find(request)
            where, name = split_path(path)
            query += [("filename", name), ("subfolder", where), ("type", Opaque(folder.value))]
            file = (folder.value, path)
        seen: set[str] = set()
        for field, value in call.query:
            if field not in NAMES and field not in seen:
                seen.add(field)
                query.append((field, self._check(field, value)))
        return UpstreamCall(call.method, tuple(map(Opaque, call.segments)), tuple(query), file=file)

    def shared(self, request: RuleInput) -> UpstreamPath | None:
        """A temp file that lies among everybody's; None where none is named."""
        return shared_temp_file(request.context.names, _find(request)) if request.call.first("filename") else None

    def _check(self, name: str, value: str) -> Opaque:
        if value in self.refuse.get(name, ()):
            raise Violation(Reason.QUERY_MALFORMED, f"`{name}={value}` is not accepted here.")
        if not (_is_plain(value) or _NUMBER.fullmatch(value)) or not _is_plain(name):
            raise Violation(Reason.QUERY_MALFORMED, f"`{name[:40]}` is not accepted: a number or a plain word is.")
        return Opaque(value)


def _is_plain(text: str) -> bool:
    # SECURITY: a second file that a pack reads lies in nobody's folder (test_own_file.py::test_no_other_field_names_a_file_of_a_neighbour).
    is_in_a_folder = ROOT in text.casefold().split("/")
    return ".." not in text and not is_in_a_folder and _PLAIN.fullmatch(text) is not None


def _find(request: RuleInput) -> tuple[Folder, UpstreamPath]:
    """As `/view` finds it; a folder in `filename` is read too, since packs write it there."""
    call, context = request.call, request.context
    filename = call.first("filename") or ""
    if "://" in filename or "//" in filename:
        raise Violation(Reason.NAME_REFUSED, "Addresses of other hosts are not accepted: upload the file first.")
    bare, annotated = split_annotation(filename)
    for name in read_path(bare)[-1:]:
        check_file_name(name)  # "a.png [temp]/" would be sent without its end, and read as another folder's
    folder = annotated or parse_folder(call.first("type"), Folder.OUTPUT)
    subfolder = call.first("subfolder") or ""
    path = f"{subfolder}/{bare}" if subfolder else bare
    return folder, context.names.readable_to_upstream(path, folder, context.shared_inputs, context.jobs.has_temp_file)
