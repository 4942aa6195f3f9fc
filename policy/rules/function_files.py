"""Files and fields of a call: a multipart form part by part, files as assets of the tenant's, data URLs likewise."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import field
from functools import partial
from typing import Any, Final

import orjson

from policy.addresses import Address, AddressRefused, is_web_address, read_address
from policy.call import Effect, UpstreamCall, UpstreamReply, Work
from policy.functions.data_urls import DataFile, is_data_url, read_data_url
from policy.functions.fetches import FetchFailed, naming, refusal
from policy.functions.settings import FILES, MAX_TEXT, ParameterSettings, ParameterType
from policy.keyform import check_names
from policy.principal import Scope
from policy.rule_context import RuleInput
from policy.rules import v2_assets
from policy.v2.assets import Asset, is_asset_id
from policy.v2.effects import DeleteAsset, FetchFile, FormFile, FormText, ReadPart, Received, ReceiveFile, SkipFile
from policy.values import value
from policy.violation import Reason, Violation

MAX_FORM_TEXT_BYTES: Final = 4 * MAX_TEXT
"""Of all texts of a form together; a file streams, and has the bounds of uploads."""


class NotStored(Exception):
    """ComfyUI does not take a file. status: its answer's."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@value
class Given:
    """What a call gives, with files as ids of assets. mark: the same whenever the same is given. made: ids of the records that are there because of it.

    addresses: by parameter, of files that are still to be fetched. webhook: that is told of the job, "" for none.
    """

    arguments: Mapping[str, Any]
    mark: bytes
    made: tuple[str, ...] = ()
    addresses: Mapping[str, Address] = field(default_factory=dict)
    webhook: str = ""


def read_form(
    request: RuleInput, parameters: Mapping[str, ParameterSettings], made: list[str]
) -> Generator[Effect, Any, Given]:
    """A multipart body. made: gets the ids of records as they are made. Raises Violation, NotStored."""
    given: dict[str, Any] = {}
    marks: dict[str, Any] = {}
    room = MAX_FORM_TEXT_BYTES
    while (part := (yield ReadPart(room))) is not None:
        # What is wrong is told at once, and not after a long file.
        parameter = parameters.get(part.name)
        if parameter is None:
            known = ", ".join(parameters) or "none at all"
            raise _refused(part.name, f"there is no such parameter: there are {known}")
        if part.name in given:
            raise _refused(part.name, "it was given twice")
        if isinstance(part, FormText):
            room -= len(part.text.encode())
            check_names(request.credentials, (part.text,), f"in `{part.name}`")
            if part.text or parameter.type not in FILES:
                given[part.name] = marks[part.name] = _Written(part.text)
            continue
        if not part.filename and not (yield SkipFile()):
            continue  # of a page's form, in which nobody chose a file
        asset = yield from _receive(request, part, parameter, made)
        given[part.name], marks[part.name] = asset.asset_id, [asset.file_path, asset.hash]
    return Given(given, orjson.dumps(sorted(marks.items())), tuple(made))


class _Written(str):
    """A text of a form: read as its parameter means it, once the form is whole."""

    __slots__ = ()


def is_written(argument: Any) -> bool:
    return isinstance(argument, _Written)


def _receive(
    request: RuleInput, part: FormFile, parameter: ParameterSettings, made: list[str]
) -> Generator[Effect, Any, Asset]:
    if parameter.type not in FILES:
        raise _refused(part.name, f"it is no file: it is of the type {parameter.type}")
    if not part.filename:
        raise _refused(part.name, "the file has no name")
    check_names(request.credentials, (part.filename,), "in a file's name")
    return (yield from store(request, part.name, part.filename, made))


def read_addresses(request: RuleInput, files: Mapping[str, Any]) -> dict[str, Address]:
    """files: by parameter, what the call gives; those of them that are addresses. Raises Violation for one that is not permitted."""
    hosts = request.context.fetches
    found: dict[str, Address] = {}
    for name, given in files.items():
        if not isinstance(given, str) or not is_web_address(given):
            continue
        if not hosts:
            raise _refused(name, "no addresses are fetched for you: the operator permits hosts with `fetch`")
        try:
            found[name] = read_address(given, hosts)
        except AddressRefused as error:
            raise _refused(name, str(error)) from None
    if found:
        _check_may_write(request)
    return found


def store_data_urls(
    request: RuleInput, files: Mapping[str, Any], made: list[str]
) -> Generator[Effect, Any, dict[str, str]]:
    """files: by parameter, what the call gives. The same with ids of assets alone. Raises Violation, NotStored."""
    found: dict[str, str] = {}
    for name, given in files.items():
        if not isinstance(given, str) or not given:
            raise _refused(name, "give the id of an asset, or a data URL; a file is sent as multipart/form-data")
        if is_data_url(given):
            file: DataFile = yield Work(partial(read_data_url, name, given), len(given))
            asset = yield from store(request, name, file.name, made, file.data)
            found[name] = asset.asset_id
        elif is_asset_id(given):
            found[name] = given
        else:  # SECURITY: no database takes every text (tests/proxy/functions/test_calls.py)
            raise no_asset(name)
    return found


def fetch(
    request: RuleInput, parameter: str, kind: ParameterType, address: Address, made: list[str]
) -> Generator[Effect, Any, Asset]:
    """What stands at an address as an asset of the tenant's. Raises Violation, NotStored."""
    context = request.context
    name = naming(parameter, kind, context.upload_types)
    try:
        return (
            yield from _store(request, parameter, made, lambda call: FetchFile(call, address, context.fetches, name))
        )
    except FetchFailed as error:
        raise refusal(parameter, address, error) from None


def store(
    request: RuleInput, parameter: str, filename: str, made: list[str], data: bytes | None = None
) -> Generator[Effect, Any, Asset]:
    """A file as an asset of the tenant's. data: None for the one that the form is at."""
    _check_may_write(request)
    return (yield from _store(request, parameter, made, lambda call: ReceiveFile(call, filename, data)))


def asset_id_for(request: RuleInput, parameter: str) -> str:
    """One minted id makes as many as there are parameters, and nobody can guess the second by the first without it."""
    return str(uuid.uuid5(uuid.UUID(request.minted_id), parameter))


def _store(
    request: RuleInput,
    parameter: str,
    made: list[str],
    receiving: Callable[[UpstreamCall], ReceiveFile | FetchFile],
) -> Generator[Effect, Any, Asset]:
    asset_id = asset_id_for(request, parameter)
    received: Received | UpstreamReply = yield receiving(v2_assets.upload_call(request, asset_id))
    if isinstance(received, UpstreamReply):
        raise NotStored(received.status)
    kept = yield from v2_assets.keep(request, asset_id, received)
    if isinstance(kept, UpstreamReply):
        raise NotStored(kept.status)
    if kept.is_new_record:
        made.append(kept.asset.asset_id)
    return kept.asset


def _check_may_write(request: RuleInput) -> None:
    if Scope.FILES_WRITE not in request.context.principal.scopes:
        raise Violation(
            Reason.SCOPE_MISSING,
            f"This credential lacks the scope {Scope.FILES_WRITE}, which sending a file needs.",
            Scope.FILES_WRITE,
        )


def discard(made: tuple[str, ...]) -> Generator[Effect, Any, None]:
    """Takes back what a call has stored that came to nothing."""
    for asset_id in made:
        try:
            yield DeleteAsset(asset_id)
        except Exception:  # noqa: S112 - a job uses it after all, or the database is away: why the call failed is what its client is told
            continue


def no_asset(name: str) -> Violation:
    """name: of a parameter."""
    return _refused(name, "there is no such asset of yours")


def _refused(name: str, rule: str) -> Violation:
    shown = name[:64]
    return Violation(Reason.ARGUMENT_REFUSED, f"The argument `{shown}` is not accepted: {rule}."[:500], shown)
