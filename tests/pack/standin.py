"""The pack in the stand-in: its classes, and what they do."""

from __future__ import annotations

import io

from aiohttp import web
from PIL import Image

from standin.folders import Folders
from standin.nodes.runner import Context, Outcome, Pictures, Runner
from standin.pack import Pack
from standin.specs import NodeSpec, typed
from tests.pack.routes import SCRIPT, GatePack

MODULE = "custom_nodes.gate_pack"


def make_pack() -> Pack:
    """A new one for each stand-in: what one keeps is not the other's."""
    kept: list[GatePack] = []

    def routes(folders: Folders) -> list[web.RouteDef]:
        roots = {"models": f"{folders.base}/models"}
        kept.append(GatePack(lambda kind: roots.get(kind) or f"{folders.base}/{kind}"))
        return kept[-1].routes()

    class Load(Runner):
        def run(self, context: Context, id: str) -> Outcome:
            found = kept[-1].kept.get(id)
            if found is None:
                raise ValueError(f"Nothing under {id}")
            return Outcome(([Image.open(io.BytesIO(found[0])).convert("RGB")],))

    class Keep(Runner):
        def run(self, context: Context, images: Pictures) -> Outcome:
            shown = [{"source": "http", "id": kept[-1].keep(_png(image)), "type": "output"} for image in images]
            return Outcome(ui={"images": shown})

    class Wait(Runner):
        has_fingerprint = True

        @classmethod
        def fingerprint(cls, folders: Folders, *args: object, **values: object) -> float:
            return float("nan")

        def run(self, context: Context, image: Pictures) -> Outcome:
            answer = kept[-1].wait_for(context.node_id, context.check_interrupt)
            return Outcome(ui={"text": [answer]})

    return Pack(
        routes,
        (
            _spec("GatePackLoad", {"id": typed("STRING", multiline=False)}, outputs=("IMAGE",)),
            _spec("GatePackKeep", {"images": typed("IMAGE")}, is_output=True),
            _spec("GatePackWait", {"image": typed("IMAGE")}, is_output=True),
        ),
        {"GatePackLoad": Load, "GatePackKeep": Keep, "GatePackWait": Wait},
        {"/extensions/gate_pack/gate.js": SCRIPT},
    )


def _spec(name: str, required: dict[str, object], **more: object) -> NodeSpec:
    return NodeSpec(name=name, title=name, category="gate", module=MODULE, required=required, **more)  # type: ignore[arg-type]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
