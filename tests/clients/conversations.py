"""What clients that cannot be installed here say to a ComfyUI, request by request: data alone, run by test_conversations.py.

A client is written down as its published source sends it. `<name>` in a path or a body stands for what an earlier answer taught.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Known = Mapping[str, Any]
JSON_TYPE = "application/json"
TEXT_TYPE = "text/plain;charset=UTF-8"  # fetch names it for a body that is a text


@dataclass(frozen=True)
class Part:
    """Of a multipart body. filename: as Python's requests gives every field one that stands in its `files`."""

    name: str
    value: str | bytes
    filename: str | None = None
    media_type: str | None = None


@dataclass(frozen=True)
class Ask:
    """One request. learn: name → where its value stands in the answer, as in `queue.0.id`.

    until: asked again, at the pace of the client, until this holds for the answer.
    """

    method: str
    path: str
    body: Any = None
    media_type: str | None = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    status: int = 200
    learn: Mapping[str, str] = field(default_factory=dict)
    until: Callable[[Any, Known], bool] | None = None
    pace_s: float = 0.1


@dataclass(frozen=True)
class Open:
    """A WebSocket."""

    path: str


@dataclass(frozen=True)
class Close:
    """The WebSocket."""


@dataclass(frozen=True)
class HearTheEnd:
    """Events until the job `<prompt_id>` has ended."""


@dataclass(frozen=True)
class Picture:
    """A request whose answer is the picture that the workflow made."""

    path: str


@dataclass(frozen=True)
class Client:
    """door: bearer, bearer+token (both on every request) or connect (no credential; through `comfygate connect`)."""

    name: str
    door: str
    steps: tuple[Ask | Open | Close | HearTheEnd | Picture, ...]


def is_there(answer: Any, known: Known) -> bool:
    return known["prompt_id"] in answer


def holds_number(answer: Any, known: Known) -> bool:
    return any(row[0] == known["number"] for row in (*answer["queue_running"], *answer["queue_pending"]))


def lacks_number(answer: Any, known: Known) -> bool:
    return not holds_number(answer, known)


def has_left(answer: Any, known: Known) -> bool:
    return all(row[1] != known["prompt_id"] for row in (*answer["queue_running"], *answer["queue_pending"]))


FILE = {"filename": "<prompt_id>.outputs.3.images.0.filename"}
PROMPT_ID = {"prompt_id": "prompt_id"}
CLIENT_ID = "<client_id>"


def clients(graph: Any, loads: Callable[[str, float], Any], png: bytes, jpeg: bytes) -> tuple[Client, ...]:
    """graph and loads(name, seconds): API-format workflows whose node 3 saves one picture; the second begins with LoadImage."""
    return (
        Client(
            "Open WebUI, image edit",
            "bearer",
            (
                Ask("GET", "/object_info"),
                Ask(
                    "POST",
                    "/api/upload/image",
                    parts=(
                        Part("image", jpeg, "0190c8a4-5f3e-7c11-9b21-4a5d6e7f8091.png", "image/png"),
                        Part("type", "input"),
                    ),
                    learn={"uploaded": "name"},
                ),
                Open(f"/ws?clientId={CLIENT_ID}"),
                Ask(
                    "POST",
                    "/prompt",
                    {"prompt": loads("<uploaded>", 0.5), "client_id": CLIENT_ID},
                    headers={"User-Agent": "Mozilla/5.0"},
                    learn=PROMPT_ID,
                ),
                HearTheEnd(),
                Ask("GET", "/history/<prompt_id>", learn=FILE),
                Picture("/view?filename=<filename>&subfolder=&type=output"),
                Close(),
            ),
        ),
        Client(
            "Dify plugin",
            "bearer",
            (
                Ask("GET", "/system_stats"),
                Ask("GET", "/models/checkpoints"),
                Ask("GET", "/object_info/KSampler"),
                Ask(
                    "POST",
                    "/upload/image",
                    parts=(Part("image", png, "photo.png", "image/png"), Part("overwrite", "true", "overwrite")),
                    learn={"uploaded": "name"},
                ),
                Open(f"/ws?clientId={CLIENT_ID}"),
                Ask(
                    "POST",
                    "/prompt",
                    {
                        "client_id": CLIENT_ID,
                        "prompt": loads("<uploaded>", 0.5),
                        "extra_data": {"api_key_comfy_org": ""},
                    },
                    media_type=None,
                    learn=PROMPT_ID,
                ),
                HearTheEnd(),
                Close(),
                Ask("GET", "/history?prompt_id=<prompt_id>", learn=FILE),
                Picture("/view?filename=<filename>&subfolder=&type=output"),
            ),
        ),
        Client(
            "SillyTavern",
            "connect",
            (
                Ask("GET", "/system_stats"),
                Ask("GET", "/object_info"),
                Ask("POST", "/prompt", {"prompt": graph}, media_type=TEXT_TYPE, learn=PROMPT_ID),
                Ask("GET", "/history", until=is_there, learn=FILE),
                Picture("/view?filename=<filename>&subfolder=&type=output"),
                # Sent when its page goes away. This one request carries a field of its own, which the gate's key takes the place of.
                Ask("POST", "/interrupt", media_type=None, headers={"Authorization": "Basic dW5kZWZpbmVk"}),
            ),
        ),
        Client(
            "n8n-nodes-comfyui",
            "bearer",
            (
                Ask("GET", "/system_stats"),
                Ask("POST", "/prompt", {"prompt": graph}, learn=PROMPT_ID),
                # A job that is in neither list for a moment counts as lost: it is asked for without a pause here.
                Ask("GET", "/queue", until=has_left, pace_s=0),
                Ask("GET", "/history/<prompt_id>", learn=FILE),
                Picture("/view?filename=<filename>&subfolder=&type=output"),
                Ask("GET", "/view?filename=<filename>&subfolder=&type=", status=400),
            ),
        ),
        Client(
            "Krita AI Diffusion, core calls",
            "connect",
            (
                Open(f"/ws?clientId={CLIENT_ID}"),
                Close(),
                Open(f"/ws?clientId={CLIENT_ID}"),
                Ask("GET", "/system_stats"),
                Ask("GET", "/object_info"),
                Ask(
                    "POST",
                    "/prompt",
                    {"prompt": graph, "client_id": CLIENT_ID, "front": False, "prompt_id": "<own_id>"},
                    learn=PROMPT_ID,
                ),
                HearTheEnd(),
                Ask("GET", "/history/<own_id>", learn=FILE),
                Picture("/view?filename=<filename>&subfolder=&type=output"),
                Close(),
            ),
        ),
        Client(
            "IntraPaint",
            "connect",
            (
                Ask("GET", "/models/checkpoints"),
                Ask("GET", "/models/configs"),
                Ask(
                    "POST",
                    "/upload/image",
                    parts=(
                        Part("type", "input"),
                        Part("subfolder", "IntraPaint"),
                        Part("overwrite", "1"),
                        Part("image", png, "src_image.png", "image/png"),
                    ),
                    learn={"uploaded": "name"},
                ),
                Ask(
                    "POST",
                    "/prompt",
                    {"prompt": loads("IntraPaint/<uploaded>", 1.5), "client_id": CLIENT_ID},
                    learn=PROMPT_ID | {"number": "number"},
                ),
                Ask("GET", "/queue", until=holds_number),
                Ask("GET", "/queue", until=lacks_number),
                Ask("GET", "/history/<prompt_id>", until=is_there, learn=FILE),
                Picture("/view?filename=<filename>&subfolder=&type=output"),
            ),
        ),
        Client(
            "Comfy Portal",
            "bearer+token",
            (
                Ask("GET", "/extensions"),
                Ask("GET", "/system_stats"),
                Ask("GET", "/models/checkpoints"),
                Open(f"/ws?clientId={CLIENT_ID}"),
                Ask("POST", "/prompt", {"prompt": graph, "client_id": CLIENT_ID}, learn=PROMPT_ID),
                HearTheEnd(),
                Ask("GET", "/history/<prompt_id>", learn=FILE),
                Picture("/view?filename=<filename>&subfolder=&type=output"),
                Close(),
            ),
        ),
    )
