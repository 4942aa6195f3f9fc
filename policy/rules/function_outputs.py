"""The results of a function's job: in the form that the function says, and within the answer itself where a client wants that (`?inline=BYTES`)."""

from __future__ import annotations

import base64
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from policy.call import ClientCall, Effect, Work
from policy.functions.conversion import Derived, NotDerived, misfit
from policy.functions.results import Result
from policy.principal import Scope
from policy.rule_context import RuleInput
from policy.rules.v2_assets import content_of
from policy.v2.asset_files import DerivedFile, FileGenerator, StoredFile, StoredText, stored_file
from policy.v2.effects import DeriveOutputs, ReadOutputs
from policy.violation import Reason, Violation

INLINE: Final = "inline"
MAX_INLINE_BYTES: Final = 1024**2
"""Of one file."""
MAX_INLINED_BYTES: Final = 8 * 1024**2
"""Of all files of an answer; the gate holds each twice more, in base64 and in the answer."""
MAX_INLINED_FILES: Final = 64
"""Of an answer: ComfyUI is asked for each of them, several times where the gate does not see its folders."""


def read_inline(request: RuleInput) -> int:
    """Up to how many bytes a file is told within the answer; 0 for none. Raises Violation(query-malformed | scope-missing)."""
    size = _size(request.call)
    if size and Scope.FILES_READ not in request.context.principal.scopes:
        words = f"This credential lacks the scope {Scope.FILES_READ}, which files within the answer need."
        raise Violation(Reason.SCOPE_MISSING, words, Scope.FILES_READ)
    return size


def _size(call: ClientCall) -> int:
    text = call.first(INLINE)
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) > MAX_INLINE_BYTES:
        words = (
            f"`{INLINE}` is how many bytes a file may have to be told within the answer: at most {MAX_INLINE_BYTES}."
        )
        raise Violation(Reason.QUERY_MALFORMED, words, INLINE)
    return int(text)


def derive(
    request: RuleInput, results: Sequence[Result], *, is_awaited: bool
) -> Generator[Effect, Any, tuple[Result, ...]]:
    """The same results, with what became of those that are given in another form. is_awaited: see DeriveOutputs."""
    files: dict[int, DerivedFile] = {}
    made: dict[int, Derived | NotDerived] = {}
    for place, result in enumerate(results):
        if result.recipe is not None:
            try:
                files[place] = _derived_file(request, result)
            except Violation as error:
                made[place] = NotDerived(error.message)
    if files:
        found = yield DeriveOutputs(tuple(files.values()), is_awaited)
        made |= dict(zip(files, found, strict=True))
    return tuple(replace(result, made=made.get(place, result.made)) for place, result in enumerate(results))


def file_of(request: RuleInput, result: Result, method: str) -> FileGenerator:
    """What an answer with this result is made of. Raises Violation(conversion-failed)."""
    if result.recipe is None:
        return (yield from content_of(request, result.asset, method))
    return _derived_file(request, result)


def _derived_file(request: RuleInput, result: Result) -> DerivedFile:
    """Raises Violation(conversion-failed), and as `stored_file`."""
    assert result.recipe is not None, "it is given in another form"
    if why := misfit(result.asset, result.recipe):
        raise Violation(Reason.CONVERSION_FAILED, why)
    context = request.context
    source = stored_file(result.asset, context.names, context.jobs.has_temp_file, "GET")
    return DerivedFile(result.asset, result.recipe, source)


def inlined(request: RuleInput, results: Sequence[Result], max_bytes: int) -> Generator[Effect, Any, list[str | None]]:
    """In base64, one for each result: of files of so many bytes at most, as many as there is room for, in their order.

    SECURITY: each is several calls of ComfyUI's, and a job may have a thousand of a few bytes (tests/policy/rules/test_function_outputs.py).
    """
    files: dict[int, StoredFile | DerivedFile] = {}
    found: dict[int, bytes | None] = {}
    room = MAX_INLINED_BYTES
    for place, result in enumerate(results):
        size = result.given.size_bytes
        if len(files) + len(found) == MAX_INLINED_FILES or result.given.hash is None or size > min(max_bytes, room):
            continue
        try:
            file = yield from file_of(request, result, "GET")
        except Violation:
            continue  # it is gone meanwhile: its address says so
        room -= size
        if isinstance(file, StoredText):
            found[place] = file.body
        else:
            files[place] = file
    if files:
        told_of = [results[place].given for place in files]
        sizes, hashes = tuple(each.size_bytes for each in told_of), tuple(each.hash or "" for each in told_of)
        read = yield ReadOutputs(tuple(files.values()), sizes, hashes)
        found |= dict(zip(files, read, strict=True))
    told: list[str | None] = yield Work(partial(_encode, len(results), found), MAX_INLINED_BYTES - room)
    return told


def _encode(count: int, found: dict[int, bytes | None]) -> list[str | None]:
    data = (found.get(place) for place in range(count))
    return [None if each is None else base64.b64encode(each).decode("ascii") for each in data]
