"""Workflows of declared classes: most of them good, some half valid, some odd; each the same for the same seed.

None of them holds what the gate keeps from ComfyUI for its own sake: links to nowhere stand in declared inputs alone, where ComfyUI names them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

# Classes that run anywhere in no time. All others are drawn for workflows that cannot be valid, so that nothing of them runs.
CHEAP: Final = frozenset(
    {
        *(
            "EmptyImage",
            "ImageInvert",
            "ImageScale",
            "ImageBatch",
            "ImageBlend",
            "ImageCrop",
            "SolidMask",
            "InvertMask",
        ),
        *("MaskToImage", "ImageToMask", "PrimitiveInt", "PrimitiveFloat", "PrimitiveString", "PrimitiveBoolean"),
        *("StringConcatenate", "EmptyLatentImage", "LatentUpscale", "GetImageSize"),
        *("PreviewImage", "SaveImage", "PreviewAny"),
    }
)
OUTPUTS: Final = ("PreviewImage", "SaveImage", "PreviewAny")
_LITERALS: Final = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
_IDS: Final = (
    "{}",
    "{}",
    "{}",
    "12:{}",
    "#{}",
    "load {}",
    "EmptyImage ({})",
    "空图{}",
    "a/b{}",
    "test[{}]3",
    "é'{}\"",
    "5.0.{}",
)


@dataclass
class Workflow:
    """A body of `POST /prompt` without a client id. kind: what was done to it, for the report."""

    kind: str
    prompt: dict[str, Any]
    fields: dict[str, Any] = field(default_factory=dict)


class Generator:
    """Draws from the classes of one `/object_info`."""

    def __init__(self, object_info: dict[str, Any], seed: int, folder: str) -> None:
        """folder: where results go, one that is not there yet."""
        self.info = object_info
        self.folder = folder
        self.random = random.Random(seed)
        self.sources = sorted(
            name for name in CHEAP - set(OUTPUTS) if name in object_info and object_info[name]["output"]
        )
        self.outputs = [name for name in OUTPUTS if name in object_info]
        self.dear = sorted(
            name
            for name, entry in object_info.items()
            if name not in CHEAP and not entry.get("api_node") and self._links(name)
        )

    def workflow(self) -> Workflow:
        change = self.random.choice(CHANGES)
        prompt = self._graph()
        if change is None:
            return Workflow("good", prompt, self._fields(prompt))
        found = change(self, prompt)
        return Workflow(change.__name__, prompt, found if found is not None else self._fields(prompt))

    def _graph(self) -> dict[str, Any]:
        prompt: dict[str, Any] = {}
        form = self.random.choice(_IDS)
        for _ in range(self.random.randint(1, 6)):
            self._add(prompt, self.random.choice(self.sources), form)
        for _ in range(self.random.randint(1, 3)):
            self._add(prompt, self.random.choice(self.outputs), form)
        return prompt

    def _add(self, prompt: dict[str, Any], name: str, form: str) -> str:
        """A node with good values; inputs for which nothing fits get a node of their own where one makes such a thing."""
        inputs: dict[str, Any] = {}
        for section in ("required", "optional"):
            for key, spec in (self.info[name]["input"].get(section) or {}).items():
                if section == "optional" and self.random.random() < 0.6:
                    continue
                value = self._value(prompt, spec, key, form)
                if value is not None:
                    inputs[key] = value
        node_id = form.format(len(prompt) + 1)
        prompt[node_id] = {"class_type": name, "inputs": inputs}
        if self.random.random() < 0.3:
            prompt[node_id]["_meta"] = {"title": self.random.choice(["Save", "Bild", "画像", ""])}
        return node_id

    def _value(self, prompt: dict[str, Any], spec: list[Any], key: str, form: str) -> Any:
        kind, options = spec[0], spec[1] if len(spec) > 1 else {}
        choices = kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None
        if choices is not None:
            return self.random.choice(choices) if choices and isinstance(choices[0], str) else None
        if key in ("width", "height", "size"):
            return self.random.choice([16, 24, 32])
        if kind == "INT":
            low, high = options.get("min", 0), min(options.get("max", 9), 9)
            return self.random.randint(low, max(low, high))
        if kind == "FLOAT":
            return round(self.random.uniform(max(options.get("min", 0.0), -2.0), min(options.get("max", 2.0), 2.0)), 2)
        if kind == "STRING":
            return (
                f"{self.folder}/{self.random.getrandbits(48):x}"
                if key == "filename_prefix"
                else self.random.choice(["", "a cat", "Ω", "x\ny"])
            )
        if kind == "BOOLEAN":
            return self.random.random() < 0.5
        return self._link(prompt, kind, form)

    def _link(self, prompt: dict[str, Any], kind: str, form: str) -> list[Any] | None:
        wanted = set(kind.split(","))
        fitting = [
            [node_id, index]
            for node_id, node in prompt.items()
            for index, made in enumerate(self.info[node["class_type"]]["output"])
            if isinstance(made, str) and (made in wanted or "*" in wanted or made == "*")
        ]
        if fitting and self.random.random() < 0.8:
            return self.random.choice(fitting)
        makers = [name for name in self.sources if self.info[name]["output"][0] in wanted and not self._links(name)]
        if makers:
            return [self._add(prompt, self.random.choice(makers), form), 0]
        return self.random.choice(fitting) if fitting else None

    def _links(self, name: str) -> list[str]:
        """Required inputs that want what a node makes."""
        required = self.info[name]["input"].get("required") or {}
        return [
            key
            for key, spec in required.items()
            if isinstance(spec[0], str) and spec[0] not in _LITERALS and not spec[0].startswith("COMFY_")
        ]

    def _fields(self, prompt: dict[str, Any]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self.random.random() < 0.3:
            workflow = {"id": f"w{self.random.getrandbits(32):x}", "nodes": [], "links": []}
            fields["extra_data"] = {
                "extra_pnginfo": {"workflow": workflow, "mine": {"a": [1, "x"]}},
                "note": "n",
                "count": 3,
            }
        outputs = [key for key, node in prompt.items() if node["class_type"] in OUTPUTS]
        if outputs and self.random.random() < 0.15:
            fields["partial_execution_targets"] = self.random.sample(outputs, self.random.randint(1, len(outputs)))
        return fields

    def _declared(self, prompt: dict[str, Any], kinds: frozenset[str]) -> list[tuple[str, str]]:
        """(node, input) of the given inputs of these types."""
        found = []
        for node_id, node in prompt.items():
            for section in self.info[node["class_type"]]["input"].values():
                for key, spec in section.items() if isinstance(section, dict) else ():
                    kind = "COMBO" if isinstance(spec[0], list) else spec[0]
                    if key in node["inputs"] and kind in kinds:
                        found.append((node_id, key))
        return found


def a_wrong_literal(draw: Generator, prompt: dict[str, Any]) -> None:
    places = draw._declared(prompt, _LITERALS)
    if places:
        node_id, key = draw.random.choice(places)
        values = [
            "abc",
            "12",
            10**9,
            -(10**9),
            1.5,
            None,
            True,
            [1, 2, 3],
            [],
            ["x"],
            {"a": 1},
            {"__value__": 5},
            {"__value__": "x"},
        ]
        value = draw.random.choice(values)
        if not (key == "filename_prefix" and not isinstance(value, str)):
            prompt[node_id]["inputs"][key] = value


def a_missing_input(draw: Generator, prompt: dict[str, Any]) -> None:
    node = draw.random.choice(list(prompt.values()))
    if node["inputs"]:
        del node["inputs"][draw.random.choice(list(node["inputs"]))]


def a_wrong_link(draw: Generator, prompt: dict[str, Any]) -> None:
    """To an output of another type, from an earlier node."""
    ids = list(prompt)
    node_id = draw.random.choice(ids)
    earlier = [each for each in ids[: ids.index(node_id)] if draw.info[prompt[each]["class_type"]]["output"]]
    names = [name for name in prompt[node_id]["inputs"] if name != "filename_prefix"]
    if earlier and names:
        prompt[node_id]["inputs"][draw.random.choice(names)] = [draw.random.choice(earlier), 0]


def a_link_to_nowhere(draw: Generator, prompt: dict[str, Any]) -> None:
    places = [
        (node, key)
        for node in prompt.values()
        for key, value in node["inputs"].items()
        if isinstance(value, list) and len(value) == 2
    ]
    if places:
        node, key = draw.random.choice(places)
        value = node["inputs"][key]
        node["inputs"][key] = draw.random.choice([["gone", 0], [value[0], 7]])


def a_cycle(draw: Generator, prompt: dict[str, Any]) -> None:
    """Through inputs that want what the node makes: else the types are what ComfyUI finds first."""
    for node_id, key in draw._declared(prompt, frozenset({"IMAGE", "MASK", "LATENT"})):
        entry = draw.info[prompt[node_id]["class_type"]]
        spec = (entry["input"].get("required") or {}).get(key) or (entry["input"].get("optional") or {})[key]
        if entry["output"] and entry["output"][0] == spec[0]:
            prompt[node_id]["inputs"][key] = [node_id, 0]
            return


def a_node_that_nothing_needs(draw: Generator, prompt: dict[str, Any]) -> None:
    value = draw.random.choice([["gone", 0], "x", None])
    prompt["spare"] = {"class_type": "ImageInvert", "inputs": {"image": value} if isinstance(value, list) else {}}


def an_undeclared_input(draw: Generator, prompt: dict[str, Any]) -> None:
    values: list[Any] = [
        7,
        1.5,
        True,
        None,
        "yuv420p",
        "a cat / a dog",
        ["a", "b"],
        [1, 2, 3],
        {"on": True, "lora": "x.safetensors"},
        {},
    ]
    ids = list(prompt)
    node_id = draw.random.choice(ids)
    earlier = [each for each in ids[: ids.index(node_id)] if draw.info[prompt[each]["class_type"]]["output"]]
    for key in draw.random.sample(["crf", "pix_fmt", "lora_1", "any_02", "save_metadata"], 2):
        prompt[node_id]["inputs"][key] = draw.random.choice(values)
    if earlier and draw.random.random() < 0.3 and not draw.info[prompt[node_id]["class_type"]]["output_node"]:
        prompt[node_id]["inputs"]["image_9"] = [draw.random.choice(earlier), 0]


def a_class_that_is_not_there(draw: Generator, prompt: dict[str, Any]) -> None:
    prompt[f"x{len(prompt)}"] = {"class_type": "NoSuchNode", "inputs": {}} | draw.random.choice(
        [{}, {"_meta": {"title": "Mine"}}]
    )


def no_outputs(draw: Generator, prompt: dict[str, Any]) -> None:
    for node_id in [key for key, node in prompt.items() if node["class_type"] in OUTPUTS]:
        del prompt[node_id]
    if not prompt:
        draw._add(prompt, draw.sources[0], "{}")


def odd_fields(draw: Generator, prompt: dict[str, Any]) -> dict[str, Any]:
    return draw.random.choice(
        [
            {"partial_execution_targets": ["nobody"]},
            {"partial_execution_targets": []},
            {"extra_data": {}},
            {"extra_data": {"preview_method": "other", "flag": True}},
            {"extra_data": {"extra_pnginfo": {}}},
            {"extra_data": {"extra_pnginfo": {"workflow": {}, "parameters": "a\nb"}}},
        ]
    )


def a_dear_class(draw: Generator, prompt: dict[str, Any]) -> None:
    """Of any class of this ComfyUI, without what it needs from others: an output wants it, so that it is looked at."""
    if not draw.dear:
        return
    name = draw.random.choice(draw.dear)
    inputs = {}
    for section in ("required", "optional"):
        for key, spec in (draw.info[name]["input"].get(section) or {}).items():
            kind = "COMBO" if isinstance(spec[0], list) else spec[0]
            if kind in ("INT", "FLOAT", "BOOLEAN") and draw.random.random() < 0.8:
                inputs[key] = draw.random.choice([0, 1, 3, 10**7, True, "7", "x"])
    prompt["dear"] = {"class_type": name, "inputs": inputs}
    prompt["last"] = {"class_type": "PreviewAny", "inputs": {"source": ["dear", 0]}}
    if not draw.info[name]["output"]:
        del prompt["last"]


CHANGES: Final = [
    *[None] * 8,
    a_wrong_literal,
    a_wrong_literal,
    a_missing_input,
    a_wrong_link,
    a_link_to_nowhere,
    a_cycle,
    a_node_that_nothing_needs,
    an_undeclared_input,
    an_undeclared_input,
    a_class_that_is_not_there,
    no_outputs,
    odd_fields,
    a_dear_class,
    a_dear_class,
]
