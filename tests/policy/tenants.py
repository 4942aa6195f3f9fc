"""Two tenants on one ComfyUI, and the words to call rules with and to drive multi-call rules."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from policy.call import AnswerNode, ClientCall, ClientReply, RuleGenerator, UpstreamCall, UpstreamReply, Work
from policy.catalogue import Catalogue, read_catalogue
from policy.judge import ADMIN_POLICY, Policy
from policy.name_patterns import compile_patterns
from policy.namespace import Namespace
from policy.node_plan import NodePlan, plan_node
from policy.principal import Principal, Role, TenantId
from policy.rule_context import OwnFiles, RuleContext, RuleInput
from policy.violation import Reason, Violation
from policy.workflow_files import rewrite_nodes


def uuid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


@dataclass
class Jobs:
    """A tenant's jobs, as a registry would tell them."""

    waiting: list[str] = field(default_factory=list)
    active: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    temp: set[str] = field(default_factory=set)
    stopped: dict[str, int] = field(default_factory=dict)
    at: dict[str, set[str]] = field(default_factory=dict)

    def owns(self, prompt_id: str) -> bool:
        return prompt_id in [*self.waiting, *self.active, *self.ended]

    def pending(self) -> Sequence[str]:
        return self.waiting

    def running(self) -> Sequence[str]:
        return self.active

    def finished(self) -> Sequence[str]:
        return self.ended

    def count_finished(self) -> int:
        return len(self.ended)

    def count_unfinished(self) -> int:
        return len(self.waiting) + len(self.active)

    def place_of(self, prompt_id: str) -> int:
        every = [*self.ended, *self.active, *self.waiting]
        return every.index(prompt_id) + 1 if prompt_id in every else 0

    def stopped_after_s(self, prompt_id: str) -> int | None:
        return self.stopped.get(prompt_id)

    def running_nodes(self) -> Mapping[str, Collection[str]]:
        return dict(self.at)

    def has_temp_file(self, name: str) -> bool:
        return name in self.temp


def node(required: dict[str, Any], outputs: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    entry = {"input": {"required": required}, "output": list(outputs), "output_node": False, "python_module": "nodes"}
    return entry | more


IN_CUSTOM = {"python_module": "custom_nodes.pack"}
PRIMITIVES = {"python_module": "comfy_extras.nodes_primitive"}
STRINGS = {"python_module": "comfy_extras.nodes_string"}

OBJECT_INFO: dict[str, Any] = {
    "LoadImage": node({"image": [["bob.png", "tenants"], {"image_upload": True}]}, ["IMAGE", "MASK"]),
    "LoadImageOutput": node(
        {
            "image": [
                "COMBO",
                {"image_upload": True, "image_folder": "output", "remote": {"route": "/internal/files/output"}},
            ]
        },
        ["IMAGE"],
    ),
    "LoadLatent": node({"latent": [["root.latent"]]}, ["LATENT"]),
    "LoadAudio": node({"audio": ["COMBO", {"options": [], "audio_upload": True}]}, ["AUDIO"]),
    "Load3D": node(
        {
            "model_file": ["COMBO", {"options": ["none", "3d/bob.glb"], "file_upload": True}],
            "image": ["LOAD_3D", {}],
            "width": ["INT", {}],
        },
        ["IMAGE"],
    ),
    "Preview3D": node({"model_file": ["STRING,FILE_3D", {}]}, output_node=True),
    "Preview3DAdvanced": node({"model_3d": ["FILE_3D"], "viewport_state": ["LOAD_3D", {}]}, output_node=True),
    "WebcamCapture": node({"image": ["WEBCAM", {}]}, ["IMAGE"]),
    "GeminiInputFiles": node({"file": ["COMBO", {"options": ["shared.pdf", "bob.pdf"]}]}, ["GEMINI_INPUT_FILES"]),
    "LoadImageDataSetFromFolder": node({"folder": ["COMBO", {"options": ["3d", "tenants/bob/cats"]}]}, ["IMAGE"]),
    "SaveImage": node({"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}, output_node=True),
    "SaveAudio": node({"filename_prefix": ["STRING", {"default": "audio/ComfyUI"}]}, output_node=True),
    "PrimitiveString": node({"value": ["STRING", {}]}, ["STRING"], **PRIMITIVES),
    "PrimitiveStringMultiline": node({"value": ["STRING", {}]}, ["STRING"], **PRIMITIVES),
    "StringConcatenate": node(
        {"string_a": ["STRING"], "string_b": ["STRING"], "delimiter": ["STRING"]}, ["STRING"], **STRINGS
    ),
    "StringTrim": node({"string": ["STRING"], "mode": [["Both", "Left", "Right"]]}, ["STRING"], **STRINGS),
    "StringReplace": node({"string": ["STRING"], "find": ["STRING"], "replace": ["STRING"]}, ["STRING"], **STRINGS),
    "PackText": node({"value": ["STRING", {}]}, ["STRING"], **IN_CUSTOM),
    "SaveLoRA": node({"lora": ["LORA_MODEL"], "prefix": ["STRING", {}]}, output_node=True),
    "SaveImageDataSetToFolder": node(
        {"images": ["IMAGE"], "folder_name": ["STRING", {}], "filename_prefix": ["STRING", {}]}, output_node=True
    ),
    "AddTextPrefix": node({"texts": ["STRING"], "prefix": ["STRING", {}]}, ["STRING"]),
    "PreviewImage": node({"images": ["IMAGE"]}, output_node=True),
    "Painter": node({"width": ["INT", {}]}, ["IMAGE"], has_intermediate_output=True),
    "CheckpointLoaderSimple": node({"ckpt_name": [["a.safetensors"]]}, ["MODEL", "CLIP", "VAE"]),
    "CLIPTextEncode": node({"text": ["STRING", {}], "clip": ["CLIP"]}, ["CONDITIONING"]),
    "EmptyImage": node({"width": ["INT", {}]}, ["IMAGE"]),
    "CustomCombo": node({"choice": ["COMBO", {"options": []}]}, ["STRING"], python_module="comfy_extras.nodes_logic"),
    "Batch": node(
        {
            "mode": [
                "COMFY_DYNAMICCOMBO_V3",
                {
                    "options": [
                        {
                            "key": "file",
                            "inputs": {"required": {"picture": [["tenants/bob/x.png"], {"image_upload": True}]}},
                        },
                        {"key": "none", "inputs": {}},
                    ]
                },
            ]
        },
        ["IMAGE"],
    ),
    "PackLoadVideo": node({"video": [["clip.mp4"]], "mode": [["fast", "slow"]]}, ["IMAGE"], **IN_CUSTOM),
    "PackAny": node({"anything": ["*", {}]}, ["IMAGE"], **IN_CUSTOM),
    "PackLoadEmpty": node({"video": [[]]}, ["IMAGE"], **IN_CUSTOM),
    "PackLoadFolder": node({"directory": [["3d", "tenants"]]}, ["IMAGE"], **IN_CUSTOM),
    "PackLoadListed": node({"file": [["tenants/bob/x.png"]]}, ["IMAGE"], **IN_CUSTOM),
    "PackLoadPath": node(
        {"video_path": ["STRING", {}], "file": ["STRING", {}], "text": ["STRING", {}]}, ["IMAGE"], **IN_CUSTOM
    ),
    "PackSave": node(
        {
            "images": ["IMAGE"],
            "output_path": ["STRING", {}],
            "filename_prefix": ["STRING", {}],
            "caption": ["STRING", {}],
        },
        output_node=True,
        **IN_CUSTOM,
    ),
}
CATALOGUE: Catalogue = read_catalogue(OBJECT_INFO)
NOW = datetime(2026, 3, 4, 5, 6, 7)
EVERYTHING = Policy(
    "everything", allow=compile_patterns(["*"]), deny=compile_patterns(["AddTextPrefix"]), max_nodes=100, max_depth=100
)


def caller_of(tenant: str = "alice", role: Role = Role.USER, **more: Any) -> RuleContext:
    name = TenantId(tenant)
    context = RuleContext(
        principal=Principal("key", name, role),
        names=Namespace(name),
        jobs=Jobs(),
        policy=EVERYTHING,
        catalogue=CATALOGUE,
        now=NOW,
        files=OwnFiles(),
        shared_inputs=("shared.pdf", "example.png", "shared/"),
    )
    return replace(context, **more)


def request_of(
    context: RuleContext | None = None,
    *,
    method: str = "GET",
    segments: tuple[str, ...] = (),
    query: dict[str, str] | None = None,
    parameters: dict[str, str] | None = None,
    document: Any = None,
    raw: bytes = b"",
) -> RuleInput:
    call = ClientCall(method, segments, tuple((query or {}).items()), parameters or {})
    return RuleInput(call, context or caller_of(), document, raw)


def reply_of(value: Any, status: int = 200) -> UpstreamReply:
    return UpstreamReply(status, value, json.dumps(value).encode())


def drive(dialogue: RuleGenerator, *answers: Any) -> tuple[list[Any], ClientReply]:
    """Runs a multi-call rule with these answers, which must be all that it asks for, does its work, and passes over what it tells.

    Returns its other steps and its reply; JSON that it wrote itself as its value.
    """
    steps: list[Any] = []
    waiting = list(answers)
    worked: Any = None
    try:
        steps.append(next(dialogue))
        while True:
            if isinstance(steps[-1], Work):
                worked = steps.pop().function()
                steps.append(dialogue.send(worked))
            elif isinstance(steps[-1], AnswerNode):
                steps.pop()
                steps.append(dialogue.send(None))
            else:
                steps.append(dialogue.send(waiting.pop(0)))
    except StopIteration as end:
        assert not waiting, f"answers that nothing asked for: {waiting}"
        reply = end.value
        assert isinstance(reply, ClientReply)
        if isinstance(worked, bytes) and reply.body is worked:
            reply = replace(reply, body=json.loads(reply.body))
        return steps, reply


def sent(call: UpstreamCall) -> Any:
    """The JSON document that a call carries."""
    assert isinstance(call.body, bytes)
    return json.loads(call.body)


def refusal(function: Any, *arguments: Any) -> Violation:
    """The violation that a rule raises; a multi-call rule is started first."""
    try:
        result = function(*arguments)
        if hasattr(result, "send"):
            step = next(result)
            while isinstance(step, Work):
                step = result.send(step.function())
    except Violation as violation:
        return violation
    raise AssertionError(f"accepted: {result}")


def is_refused(function: Any, *arguments: Any, reason: Reason) -> bool:
    return refusal(function, *arguments).reason is reason


def plans_of(nodes: Mapping[str, Any], catalogue: Catalogue) -> dict[str, NodePlan]:
    """As judging makes them."""
    plans = {}
    for node_id, node in nodes.items():
        class_plan = ADMIN_POLICY.plan_of(node["class_type"], catalogue)
        assert class_plan is not None, "no class of the catalogue"
        plans[node_id] = plan_node(class_plan, node["inputs"])
    return plans


def rewrite_workflow(nodes: Mapping[str, Any], context: RuleContext) -> dict[str, Any]:
    """A workflow as ComfyUI gets it, without having been judged."""
    copied: dict[str, Any] = copy.deepcopy(dict(nodes))
    rewrite_nodes(copied, plans_of(copied, context.catalogue), context)
    return copied
