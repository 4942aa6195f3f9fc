"""Calls of functions beside the same workflows sent as they are: what each asks of the gate, up to ComfyUI's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from policy.call import CheckTempFiles, ClaimedJob, ClaimJob, JobExtras, Tried, TryJob, Work
from policy.catalogue import read_catalogue
from policy.functions.function import CallableFunction, Function, make_function
from policy.functions.results import LABEL, VERSION_LABEL
from policy.functions.settings import FunctionSettings
from policy.judge import Policy, compile_policy
from policy.patience import ENDLESS
from policy.rule_context import RuleContext
from policy.rules import functions, prompt
from policy.rules.function_files import Given
from policy.rules.results import SDK_CLIENT
from policy.settings import PolicySettings
from policy.templates.template import Template, key_of
from policy.v2.assets import name_in_workflow
from policy.v2.effects import FindAssets
from policy.violation import Violation
from tests.policy import graphs, tenants
from tests.policy.tenants import caller_of, node, reply_of, request_of
from tests.policy.v2.examples import JOB, upload

CATALOGUE = read_catalogue(
    graphs.OBJECT_INFO
    | tenants.OBJECT_INFO
    | {
        "PackDraw": node({"size": ["INT", {}], "style": ["STRING", {}]}, ["IMAGE"], **tenants.IN_CUSTOM),
        "PackShow": node({"images": ["IMAGE"]}, output_node=True, **tenants.IN_CUSTOM),
        "Grow": node({"images": ["IMAGE"], "width": ["INT", {}]}, ["IMAGE"]),
    }
)
ASSET = upload()
FILES = {"alice": {ASSET.asset_id: ASSET}}


def policy_of(**fields: Any) -> Policy:
    documents = fields.pop("documents", {})
    settings = PolicySettings.model_validate({"allow": ["*"], "max_nodes": 50, "max_depth": 20} | fields)
    return compile_policy("p", {"p": settings}, {}, documents)


def function_of(graph: Mapping[str, Any], parameters: Mapping[str, Any], **more: Any) -> Function:
    return make_function("made", FunctionSettings.model_validate({"parameters": parameters} | more), graph)


def context_of(tenant: str = "alice", **more: Any) -> RuleContext:
    return caller_of(tenant, catalogue=CATALOGUE, id_inputs=more.pop("id_inputs", NO_IDS), **more)


NO_IDS: Mapping[str, frozenset[str]] = {}


def template_of(function: Function, policy: Policy, values: Mapping[str, Any], context: RuleContext) -> Template | None:
    """What is kept of calls with such values; there must have been one."""
    is_known, template = function.workflow.templates.find(key_of(context.names.tenant, policy, values), context)
    assert is_known
    return template


def call(
    function: Function, policy: Policy, arguments: Mapping[str, Any], context: RuleContext, **more: Any
) -> tuple[list[Any], Any]:
    """All that a call asks for, and the violation that it ends with, None for none."""
    context = replace(context, functions={"made": CallableFunction(function, policy)}, policy=NOTHING)
    asked = replace(request_of(context, method="POST", parameters={"name": "made"}), **more)
    return steps_of(functions.submit(asked, Given(arguments, b"")))


def send(
    function: Function, policy: Policy, arguments: Mapping[str, Any], context: RuleContext, **more: Any
) -> tuple[list[Any], Any]:
    """The same of `POST /prompt` with the workflow as a tenant would fill it, and send it."""
    files = [name for name in arguments if function.parameters[name].type == "image"]
    values = {**arguments, **{name: name_in_workflow(ASSET) for name in files}}
    raw = orjson.dumps({"prompt": function.workflow.filled(values), "client_id": SDK_CLIENT})
    extras = JobExtras(
        {LABEL: "made", VERSION_LABEL: function.version}, tuple(dict.fromkeys(arguments[name] for name in files))
    )
    context = replace(context, policy=policy, labels=function.settings.labels)
    asked = replace(request_of(context, method="POST", raw=raw), **more)
    return steps_of(prompt.submit(asked, extras))


NOTHING = policy_of(allow=[])


def steps_of(rule: Any) -> tuple[list[Any], Any]:
    steps: list[Any] = []
    try:
        step = next(rule)
        while True:
            if not isinstance(step, Work | FindAssets):
                steps.append(step)
            step = rule.send(answer_of(step))
    except StopIteration:
        return steps, None
    except Violation as violation:
        return steps, vars(violation)


def answer_of(step: Any) -> Any:
    match step:
        case Work():
            return step.function()
        case FindAssets():
            return {ASSET.asset_id: ASSET}
        case CheckTempFiles():
            return True
        case ClaimJob():
            return ClaimedJob(JOB, is_next=False, sequence=3)
        case TryJob():
            return Tried(reply_of({"prompt_id": JOB, "number": 1, "node_errors": {}}))
    return None


ALICE = context_of()
OPEN = policy_of()


def text(*fills: str) -> dict[str, Any]:
    return {"type": "text", "fills": fills}


def whole(fills: str) -> dict[str, Any]:
    return {"type": "integer", "fills": [fills]}


def both(function: Function, policy: Policy, arguments: Mapping[str, Any], **more: Any) -> Any:
    """A call, which must ask for the same as its workflow."""
    context = more.pop("context", ALICE)
    found = call(function, policy, arguments, context, **more)
    assert found == send(function, policy, arguments, context, **more)
    return found


def kept(function: Function, policy: Policy, arguments: Mapping[str, Any], **more: Any) -> Template | None:
    """After a call that was permitted; for the next ones."""
    context = more.get("context", ALICE)
    _, violation = both(function, policy, arguments, **more)
    assert violation is None
    return template_of(function, policy, arguments, context)


def known(function: Function, policy: Policy, arguments: Mapping[str, Any], **more: Any) -> Template:
    template = kept(function, policy, arguments, **more)
    assert template is not None
    return template


def fills(template: Template, values: Mapping[str, Any], **more: Any) -> bool:
    """Whether it is good for these values."""
    asked = replace(request_of(more.pop("context", ALICE)), **more)
    return template.fill(values, asked, ENDLESS) is not None
