"""/gate/functions, /gate/run, /gate/jobs: a workflow that is called with named arguments. The job is one like any other: same policy, limits, queue, record.

A call is made in steps: `gather` reads what it gives, `submit` makes the job of it, and `tell` or `result` say what became of it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import orjson

from policy.call import CheckRoom, ClientReply, Effect, JobExtras, RuleGenerator, Work
from policy.document import parse_json
from policy.functions.arguments import Arguments, bounds_of, read_arguments, read_written
from policy.functions.delivery import Delivery, Kind
from policy.functions.fetches import name_before
from policy.functions.function import CallableFunction, Function
from policy.functions.results import (
    LABEL,
    VERSION_LABEL,
    call_to_client,
    find_result,
    function_of,
    job_address,
    pick,
    result_address,
    results_of,
)
from policy.functions.schema import arguments_schema
from policy.functions.settings import FILES, ParameterSettings
from policy.keyform import check_document
from policy.patience import AT_ONCE_EFFORT, Patience
from policy.prepared import Prepared
from policy.principal import Scope
from policy.rule_context import RuleInput
from policy.rules import prompt
from policy.rules.function_files import (
    Given,
    NotStored,
    asset_id_for,
    discard,
    is_written,
    no_asset,
    read_addresses,
    read_form,
    store_data_urls,
)
from policy.rules.function_files import fetch as fetch_file
from policy.rules.function_outputs import derive, file_of, inlined, read_inline
from policy.rules.results import SDK_CLIENT
from policy.templates.learning import prepare_and_learn
from policy.templates.template import key_of
from policy.v2.asset_files import FileGenerator, GivenFile
from policy.v2.asset_uploads import FOLDER
from policy.v2.assets import Asset, name_in_workflow
from policy.v2.effects import CancelJob, DrawSeeds, FindAssets, ForecastStart, ReadJob
from policy.v2.errors import no_job
from policy.v2.jobs import JobView, Status
from policy.values import value
from policy.violation import Reason, Violation

_TOO_LARGE: Final = 413
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_TOLD_ONCE: Final = ("node_errors", "notices", "drawn", "assets")
"""In the answer to the call."""


def list_functions(request: RuleInput) -> RuleGenerator:
    """GET /gate/functions: those that one may call, each with the schema of its arguments."""
    yield from ()
    shown = [_about(found.function, request) for found in request.context.functions.values()]
    return ClientReply(body={"functions": shown})


def describe(request: RuleInput) -> RuleGenerator:
    """GET /gate/functions/{name}."""
    yield from ()
    return ClientReply(body=_about(_called(request).function, request))


def _about(function: Function, request: RuleInput) -> dict[str, Any]:
    return {
        "name": function.name,
        "title": function.title,
        "description": function.settings.description,
        "version": function.version,
        "url": f"{request.context.links.prefix}/gate/run/{function.name}",
        "arguments": arguments_schema(function),
        "outputs": list(function.outputs),
    }


# A call.


def takes_files(request: RuleInput) -> bool:
    """Whether a call may give any. Raises Violation(not-found)."""
    return request.is_form or _called(request).function.takes_files


def check_call(request: RuleInput, delivery: Delivery) -> None:
    """Before anything is read of it. Raises Violation(not-found | scope-missing | query-malformed)."""
    _called(request)
    read_inline(request)
    needs = {Scope.JOBS_READ} if delivery.kind is not Kind.JOB or delivery.wait_s else set()
    needs |= {Scope.FILES_READ} if delivery.kind is Kind.BYTES else set()
    for scope in sorted(needs - request.context.principal.scopes):
        words = f"This credential lacks the scope {scope}, which waiting for a result needs."
        raise Violation(Reason.SCOPE_MISSING, words, scope)


def gather(request: RuleInput, webhook: str = "") -> Generator[Effect, Any, Given]:
    """What a call gives, read and judged, with its files stored. Nothing stays of one that is refused. webhook: as the call names it.

    Raises Violation, NotStored.
    """
    parameters = _called(request).function.parameters
    made: list[str] = []
    try:
        if request.is_form:
            given = yield from read_form(request, parameters, made)
            arguments, mark = _read_texts(given.arguments, parameters), given.mark
            read_arguments(parameters, arguments)
        else:
            arguments = yield Work(partial(_read, request, parameters), len(request.raw))
            mark = request.raw
        files = {name: given for name, given in arguments.items() if parameters[name].type in FILES}
        addresses = read_addresses(request, files)
        sent = {name: given for name, given in files.items() if name not in addresses}
        stored = yield from store_data_urls(request, sent, made)
    except Exception:
        yield from discard(tuple(made))
        raise
    there = {name: argument for name, argument in arguments.items() if name not in addresses}
    return Given(there | stored, mark + webhook.encode(), tuple(made), addresses, webhook)


def _read_texts(given: Mapping[str, Any], parameters: Mapping[str, ParameterSettings]) -> dict[str, Any]:
    return {
        name: read_written(name, parameters[name], str(argument)) if is_written(argument) else argument
        for name, argument in given.items()
    }


def _read(request: RuleInput, parameters: Mapping[str, ParameterSettings]) -> dict[str, Any]:
    """The arguments of a JSON body, by name, without those that are null."""
    # SECURITY: what goes on to ComfyUI may go on from there (tests/security/test_misplaced_keys.py).
    raw, _ = check_document(request.credentials, request.raw, request.max_parts)
    document = parse_json(raw, max_parts=request.max_parts) if raw else {}
    if not isinstance(document, dict):
        raise Violation(Reason.BODY_MALFORMED, "Send the arguments as a JSON object, by name.")
    read_arguments(parameters, document)
    return {name: argument for name, argument in document.items() if argument is not None}


def fetch(request: RuleInput, given: Given) -> Generator[Effect, Any, Given]:
    """The same with what stands at its addresses as assets; nothing of it stays where one of them is refused. Raises Violation, NotStored.

    SECURITY: nobody outside is asked before everything else of the call was judged, and there is room for its job
    (tests/policy/rules/test_function_fetches.py).
    """
    if not given.addresses:
        return given
    parameters = _called(request).function.parameters
    yield from _check_before(request, given)
    made: list[str] = []
    fetched: dict[str, str] = {}
    try:
        for name, address in given.addresses.items():
            asset = yield from fetch_file(request, name, parameters[name].type, address, made)
            fetched[name] = asset.asset_id
    except Exception:
        yield from discard(tuple(made))
        raise
    return replace(given, arguments={**given.arguments, **fetched}, made=(*given.made, *made), addresses={})


def _check_before(request: RuleInput, given: Given) -> Generator[Effect, Any, None]:
    called = _called(request)
    parameters = called.function.parameters
    to_come = {name: name_before(name, parameters[name].type) for name in given.addresses}
    arguments = read_arguments(parameters, {**given.arguments, **to_come})
    there = yield from _find_files({name: id for name, id in arguments.files.items() if name not in to_come})
    names = {name: f"{FOLDER}/{asset_id_for(request, name)}/{filename}" for name, filename in to_come.items()}
    seeds = {name: bounds_of(parameters[name])[0] for name in arguments.to_draw}
    graph = called.function.workflow.filled({**arguments.values, **seeds, **there, **names})
    asked = _as_prompt(request, called, graph)
    yield Work(partial(prompt.check, asked), max(len(asked.raw), prompt.LARGE_BYTES))
    yield CheckRoom()


def _prepared(
    request: RuleInput, called: CallableFunction, values: Mapping[str, Any]
) -> Generator[Effect, Any, Prepared]:
    """values: by parameter, as they go into the workflow. Of it is judged what depends on them, where the rest is known."""
    function, context = called.function, request.context
    _, template = function.workflow.templates.find(key_of(context.names.tenant, called.policy, values), context)
    prepared = None if template is None else template.fill(values, request, Patience(AT_ONCE_EFFORT))
    if prepared is not None:
        return prepared
    asked = _as_prompt(request, called, function.workflow.filled(values))
    return (yield from prompt.prepared_of(asked, partial(prepare_and_learn, function.workflow, values)))


def _as_prompt(request: RuleInput, called: CallableFunction, graph: Mapping[str, Any]) -> RuleInput:
    """The workflow as if the tenant had sent it, to be judged by the function's policy."""
    labels = called.function.settings.labels
    context = replace(request.context, policy=called.policy, takes_workflows=True, labels=labels)
    return replace(request, raw=orjson.dumps({"prompt": graph, "client_id": SDK_CLIENT}), context=context)


def submit(request: RuleInput, given: Given) -> RuleGenerator:
    """200, with the id of a job that is on disk, and what was drawn for it; a refusal of ComfyUI's is its own."""
    called = _called(request)
    function = called.function
    arguments: Arguments = read_arguments(function.parameters, given.arguments)
    values = dict(arguments.values)
    bounds = tuple(bounds_of(function.parameters[name]) for name in arguments.to_draw)
    seeds = (yield DrawSeeds(bounds)) if bounds else ()
    drawn = dict(zip(arguments.to_draw, seeds, strict=True))
    files = yield from _find_files(arguments.files)
    preparing = partial(_prepared, request, called, values | drawn | files)
    labels = {LABEL: function.name, VERSION_LABEL: function.version}
    assets = tuple(dict.fromkeys(arguments.files.values()))  # one may stand in several parameters
    extras = JobExtras(labels, assets, given.webhook)
    reply = yield from prompt.submit_prepared(request.context, preparing, extras)
    if reply.status != 200:
        return reply
    about: dict[str, Any] = {"labels": extras.labels, "drawn": drawn, "assets": dict(arguments.files)}
    kept = {key: reply.body[key] for key in ("prompt_id", "node_errors", "notices") if reply.body.get(key)}
    return ClientReply(body=kept | {key: told for key, told in about.items() if told}, updates=reply.updates)


def _find_files(files: Mapping[str, str]) -> Generator[Effect, Any, dict[str, str]]:
    """Names for the workflow, by parameter."""
    found: Mapping[str, Asset] = (yield FindAssets(tuple(files.values()))) if files else {}
    for name, asset_id in files.items():
        if asset_id not in found:
            raise no_asset(name)
    return {name: name_in_workflow(found[asset_id]) for name, asset_id in files.items()}


def not_stored(error: NotStored) -> ClientReply:
    """Of a file that ComfyUI does not take. Raises Violation(body-too-large)."""
    if error.status == _TOO_LARGE:
        raise Violation(
            Reason.BODY_TOO_LARGE, "ComfyUI takes no file as large as this.", "the operator sets --max-upload-size"
        )
    message = "ComfyUI did not store the file. Try again; if it stays so, the operator finds why in ComfyUI's log."
    told = {"type": "upstream_unavailable", "message": message, "details": f"ComfyUI answered {error.status}"}
    return ClientReply(502, {"error": told | {"extra_info": {}}, "node_errors": {}}, headers=(("Retry-After", "5"),))


def tell(request: RuleInput, accepted: Mapping[str, Any], delivery: Delivery) -> RuleGenerator:
    """200 with a job that has ended, however it ended: that the job failed is no error of the request, which was to run it. Else 202, and where to look.

    accepted: the body of `submit`'s answer.
    """
    prompt_id = accepted["prompt_id"]
    job: JobView | None = yield ReadJob(prompt_id, accepted.get("labels"))
    now_s = request.context.now.timestamp()
    # It is on disk, and cannot be read in this moment; or it is gone already, deleted by its own tenant.
    once = {key: accepted[key] for key in _TOLD_ONCE if accepted.get(key)}
    shown = yield from _show(request, job or JobView(prompt_id, Status.QUEUED, now_s, now_s), once)
    headers = [("Location", job_address(request.context.links, prompt_id))]
    if delivery.is_waited_for:
        headers.append(("Preference-Applied", f"wait={delivery.wait_s}"))
    is_over = job is not None and job.ended_at_s is not None and delivery.wait_s > 0
    return ClientReply(200 if is_over else 202, shown.body, headers=tuple(headers))


@value
class Delivered:
    """The bytes of a result, and where they are found again: relative to the host."""

    file: GivenFile
    address: str


def result(request: RuleInput, prompt_id: str, delivery: Delivery) -> Generator[Effect, Any, Delivered]:
    """The one result that fits. Raises Violation(not-acceptable | conversion-failed)."""
    job = _there((yield ReadJob(prompt_id)))
    context = request.context
    found = pick(job, function_of(job, context.functions), delivery.ranges, context.links)
    file = yield from file_of(request, found, "GET")
    return Delivered(file, result_address(context.links, prompt_id, found))


# Its job.


def read(request: RuleInput) -> RuleGenerator:
    """GET /gate/jobs/{id}."""
    read_inline(request)
    job = _there((yield ReadJob(request.call.parameters["job_id"])))
    return (yield from _show(request, job))


def cancel(request: RuleInput) -> RuleGenerator:
    """POST /gate/jobs/{id}/cancel. What has ended stays as it ended."""
    read_inline(request)
    job = _there((yield CancelJob(request.call.parameters["job_id"])))
    return (yield from _show(request, job))


def output(request: RuleInput) -> FileGenerator:
    """GET /gate/jobs/{id}/outputs/{name}."""
    index = _read_index(request.call.first("index"))
    job = _there((yield ReadJob(request.call.parameters["job_id"])))
    function = function_of(job, request.context.functions)
    found = find_result(job, function, request.call.parameters["name"], index)
    return (yield from file_of(request, found, request.call.method))


def _read_index(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise Violation(Reason.QUERY_MALFORMED, "`index` counts the files of an output from 0.", "index")
    return int(text)


def _show(request: RuleInput, job: JobView, more: Mapping[str, Any] = _NOTHING) -> RuleGenerator:
    """Of a job that has ended its results are made and told as they are given; more: what is told besides."""
    context, max_bytes = request.context, read_inline(request)
    starts_at_s = (yield ForecastStart(job.prompt_id)) if job.status is Status.QUEUED else None
    results = results_of(job, function_of(job, context.functions))
    results = yield from derive(request, results, is_awaited=job.ended_at_s is not None)
    shown = call_to_client(job, results, context.links, starts_at_s) | dict(more)
    if not max_bytes:
        return ClientReply(body=shown)
    told = yield from inlined(request, results, max_bytes)
    for output, data in zip(shown["outputs"], told, strict=True):
        output["data"] = data
    body: bytes = yield Work(partial(orjson.dumps, shown), sum(len(data or "") for data in told))
    return ClientReply(body=body)


def _there(job: JobView | None) -> JobView:
    if job is None:
        raise no_job(is_v2=False)
    return job


def _called(request: RuleInput) -> CallableFunction:
    """SECURITY: a function that one may not call answers as one that is not there."""
    found = request.context.functions.get(request.call.parameters["name"])
    if found is None:
        raise Violation(
            Reason.NOT_FOUND, "There is no such function for you: /gate/functions lists those that there are."
        )
    return found
