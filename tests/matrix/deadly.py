"""Requests that ComfyUI does not survive, or that take something from everybody, and their relatives. Bodies of POST /prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from tests.contract.driver import empty_image, node, previewing

NOWHERE = ["55", 0]


@dataclass(frozen=True)
class Deadly:
    """harm: what a ComfyUI that gets this loses: its process, its worker, its job list, its JSON; None where it is a relative that does less.

    raw: the body where JSON has no word for it.
    """

    name: str
    body: Any = None
    harm: str | None = None
    raw: bytes | None = None

    @property
    def sent(self) -> bytes:
        return orjson.dumps(self.body) if self.raw is None else self.raw


def _fields(name: str, harm: str | None = None, /, **fields: Any) -> Deadly:
    return Deadly(name, {"prompt": previewing(11), **fields}, harm)


def _graph(name: str, harm: str | None = None, /, **nodes: Any) -> Deadly:
    return Deadly(name, {"prompt": previewing(12) | nodes}, harm)


def _input(name: str, harm: str | None = None, /, **inputs: Any) -> Deadly:
    return Deadly(name, {"prompt": {"1": empty_image(13, **inputs), "2": node("PreviewImage", images=["1", 0])}}, harm)


def _shown(name: str, harm: str | None = None, /, **extra_data: Any) -> Deadly:
    """The job list of ComfyUI breaks when the job has ended and shows a text, or waits."""
    return Deadly(name, {"prompt": previewing(14), "extra_data": extra_data}, harm)


CLIENT_IDS = [
    _fields("client id list", "process", client_id=[]),
    _fields("client id object", "process", client_id={}),
    _fields("client id list of texts", "process", client_id=["a"]),
    _fields("client id nested", "process", client_id={"a": ["b"]}),
    _fields("client id in extra data list", "process", extra_data={"client_id": []}),
    _fields("client id in extra data object", "process", extra_data={"client_id": {"a": 1}}),
    _fields("both client ids", "process", client_id=[], extra_data={"client_id": "good"}),
    _fields("good client id and bad one in extra data", client_id="good", extra_data={"client_id": []}),
    _fields("client id number", client_id=5),
    _fields("client id float", client_id=1.5),
    _fields("client id true", client_id=True),
    _fields("client id null", client_id=None),
    _fields("client id empty", client_id=""),
    _fields("client id with a newline", client_id="a\nb"),
    _fields("extra data list", extra_data=[]),
    _fields("extra data text", extra_data="x"),
    _fields("extra data null", extra_data=None),
]
GRAPHS = [
    _graph("unconnected node without inputs", "worker", **{"9": {"class_type": "EmptyImage"}}),
    _graph("unconnected output without inputs", **{"9": {"class_type": "PreviewImage"}}),
    _graph("node with inputs null", **{"9": {"class_type": "EmptyImage", "inputs": None}}),
    _graph("node with inputs list", **{"9": {"class_type": "EmptyImage", "inputs": []}}),
    _graph("node without class", **{"9": {"inputs": {}}}),
    _graph("node list", **{"9": []}),
    _graph("node null", **{"9": None}),
    _graph("class list", **{"9": {"class_type": ["EmptyImage"], "inputs": {}}}),
    _graph("class unknown", **{"9": {"class_type": "NoSuchNode", "inputs": {}}}),
    _graph("unconnected link to nowhere", **{"9": node("ImageInvert", image=NOWHERE)}),
    _graph("cycle", **{"8": node("ImageInvert", image=["9", 0]), "9": node("ImageInvert", image=["8", 0])}),
    _graph("self link", **{"9": node("PreviewImage", images=["9", 0])}),
    _input("undeclared link to nowhere", "worker", zzz=NOWHERE),
    _input("undeclared link with a negative output", zzz=["2", -1]),
    _input("undeclared link to itself", zzz=["1", 0]),
    _input("undeclared link with an output that is none", zzz=["2", 99]),
    _input("undeclared wrapper with a link to nowhere", zzz={"__value__": NOWHERE}),
    _input("declared link to nowhere", width=NOWHERE),
    _input("declared wrapper with a link", width={"__value__": NOWHERE}),
    _input("declared wrapper of a wrapper", width={"__value__": {"__value__": 32}}),
    _input("declared link of three", width=["1", 0, 0]),
    _input("declared link with a text for the output", width=["1", "0"]),
    _input("declared link to a number", width=[1, 0]),
    _input("the gate's own salt as a link to nowhere", "worker", comfygate_tenant=NOWHERE),
    Deadly(
        "is_changed of the client's", {"prompt": {"1": empty_image() | {"is_changed": {"a": []}}, **previewing(15)}}
    ),
    Deadly("prompt null", {"prompt": None}),
    Deadly("prompt list", {"prompt": []}),
    Deadly("prompt text", {"prompt": "x"}),
    Deadly("prompt empty", {"prompt": {}}),
    Deadly("web UI's format", {"prompt": {"nodes": [], "links": [], "version": 0.4}}),
    Deadly("body list", [previewing(16)]),
    Deadly("body null", None, raw=b"null"),
    Deadly("no body", None, raw=b""),
    Deadly("not JSON", None, raw=b"\xff\xfe{"),
    Deadly("deep lists", None, raw=b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    Deadly("deep objects", None, raw=b'{"prompt":{"1":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}}"),
]
PLACES = [
    _fields("number NaN", "json", number="NaN"),
    _fields("number Infinity", "json", number="Infinity"),
    _fields("number -Infinity", "json", number="-Infinity"),
    Deadly("number NaN bare", None, "json", raw=b'{"prompt":%s,"number":NaN}' % orjson.dumps(previewing(17))),
    Deadly("number 1e999", None, "json", raw=b'{"prompt":%s,"number":1e999}' % orjson.dumps(previewing(18))),
    _fields("number null", number=None),
    _fields("number text", number="abc"),
    _fields("number list", number=[1]),
    _fields("number true", number=True),
    _fields("front text", front="no"),
    _fields("front list", front=[[]]),
    _fields("prompt id list", prompt_id=[]),
    _fields("prompt id number", prompt_id=7),
    _fields("prompt id in capitals", prompt_id="C8111192-B372-4439-943D-F62D358EF47C"),
    _fields("prompt id empty", prompt_id=""),
    _fields("targets text", partial_execution_targets="2"),
    _fields("targets number", partial_execution_targets=2),
    _fields("targets nested", partial_execution_targets=[["2"]]),
    _fields("targets object", partial_execution_targets={"2": 1}),
    _fields("targets of nothing", partial_execution_targets=["77"]),
]
SHOWN = [
    _shown("pnginfo text", "jobs", extra_pnginfo="text"),
    _shown("pnginfo null", "jobs", extra_pnginfo=None),
    _shown("pnginfo list", "jobs", extra_pnginfo=[]),
    _shown("pnginfo number", "jobs", extra_pnginfo=5),
    _shown("workflow null", "jobs", extra_pnginfo={"workflow": None}),
    _shown("workflow list", "jobs", extra_pnginfo={"workflow": []}),
    _shown("workflow text", "jobs", extra_pnginfo={"workflow": "x"}),
    _shown("workflow id list", extra_pnginfo={"workflow": {"id": ["a"]}}),
    _shown("workflow id object", extra_pnginfo={"workflow": {"id": {}}}),
    _shown("other pnginfo", extra_pnginfo={"other": {"a": object.__name__}}),
    _shown("preview method unknown", preview_method="explode"),
    _shown("preview method list", preview_method=[]),
    _shown("credentials of other types", auth_token_comfy_org=[], api_key_comfy_org={}),
    _shown("create time", create_time="never"),
    _shown("usage source list", comfy_usage_source=[]),
]
DEADLY = CLIENT_IDS + GRAPHS + PLACES + SHOWN
KILLING = [each for each in DEADLY if each.harm is not None]
TWIN = "c8111192-b372-4439-943d-f62d358ef47c"
