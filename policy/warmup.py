"""A function's workflow as it is run for what it loads, and for nobody: what it saves goes into a folder of the gate's own."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

from policy.catalogue import Catalogue
from policy.compiled_policy import ADMIN_POLICY
from policy.file_uses import FileUse
from policy.functions.arguments import bounds_of, read_arguments
from policy.functions.function import Function
from policy.judge import judge_document
from policy.prepared import document_of
from policy.rules.prompt import LAST_PLACE
from policy.violation import Violation
from policy.workflow_files import use_of_value
from policy.workflow_needs import find_models

CLIENT: Final = "comfygate-warmup"
"""The client id, and how the folders begin. It has no dot, so no tenant's client has it (policy/namespace.py)."""
PLACE: Final = LAST_PLACE - 1
"""In ComfyUI's queue: behind all jobs, and not among those that are only tried."""


class Warmup(NamedTuple):
    """body: of `POST /prompt`, but for id and place (policy.rules.prompt.body_for). models: that it loads."""

    body: bytes
    models: tuple[str, ...]


def folder_of(comfyui: str) -> str:
    """Where warm-ups of this ComfyUI save, in its output folder: several may share that."""
    return f"{CLIENT}-{comfyui}"


def missing_argument(function: Function) -> str:
    """The parameter without which it cannot run; "" where all have defaults."""
    try:
        read_arguments(function.parameters, {})
    except Violation as violation:
        return violation.details
    return ""


def make_warmup(function: Function, catalogue: Catalogue, folder: str) -> Warmup:
    """The function with its defaults, and the same each time, so that ComfyUI computes nothing twice. folder: of `folder_of`.

    Raises Violation where the catalogue has not what it needs, or a parameter has no default.
    """
    parameters = function.parameters
    arguments = read_arguments(parameters, {})
    seeds = {name: bounds_of(parameters[name])[0] for name in arguments.to_draw}
    graph = function.workflow.filled({**arguments.values, **seeds})
    own: dict[str, Any] = orjson.loads(orjson.dumps({"prompt": graph}))  # the judge takes it over
    judged = judge_document(own, ADMIN_POLICY, catalogue)
    for node_id, plan in judged.plans.items():
        inputs = judged.nodes[node_id]["inputs"]
        for name in plan.files:
            match use_of_value(name, inputs.get(name), plan):
                case FileUse.PREFIX:
                    inputs[name] = f"{folder}/{function.name}"
                case FileUse.FOLDER_TO_WRITE:
                    inputs[name] = folder
    return Warmup(orjson.dumps(document_of(judged, CLIENT)), find_models(judged.nodes, judged.plans))


def is_warmup(entry: Any) -> bool:
    """Whether an entry of ComfyUI's history is one's."""
    prompt = entry.get("prompt") if isinstance(entry, dict) else None
    extra = prompt[3] if isinstance(prompt, list) and len(prompt) > 3 else None
    return isinstance(extra, dict) and extra.get("client_id") == CLIENT
