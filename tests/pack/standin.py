"""The pack in the stand-in: its classes, and what they do."""

from __future__ import annotations

import io

from aiohttp import web
from PIL import Image

from standin.folders import Folders
from standin.nodes.runner import Context, Outcome, Pictures, Runner
from standin.pack import Pack
from standin.specs import NodeSpec, choice, typed
from tests.pack.routes import SCRIPT, GatePack

MODULE = "custom_nodes.gate_pack"


def make_pack() -> Pack:
    """A new one for each stand-in: what one keeps is not the other's."""
    kept: list[GatePack] = []

    def routes(folders: Folders) -> list[web.RouteDef]:
        roots = {"models": f"{folders.base}/models"}
        kept.append(GatePack(lambda kind: roots.get(kind) or f"{folders.base}/{kind}"))
        return kept[-1].routes()

    specs, runners = make_classes(kept, "GatePackLoad", "GatePackKeep", "GatePackWait")
    return Pack(routes, specs, runners, {"/extensions/gate_pack/gate.js": SCRIPT})


def make_classes(
    kept: list[GatePack], load: str, keep: str, wait: str
) -> tuple[tuple[NodeSpec, ...], dict[str, type[Runner]]]:
    """kept: the pack of the stand-in that runs, last. The others name the classes."""

    class Load(Runner):
        def run(self, context: Context, id: str) -> Outcome:
            found = kept[-1].kept.get(id)
            if found is None:
                raise ValueError(f"Nothing under {id}")
            return Outcome(([Image.open(io.BytesIO(found[0])).convert("RGB")],))

    class Keep(Runner):
        def run(self, context: Context, images: Pictures, format: str = "PNG") -> Outcome:
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

    specs = (
        _spec(load, {"id": typed("STRING", multiline=False)}, outputs=("IMAGE",)),
        _spec(keep, {"images": typed("IMAGE")}, optional={"format": choice(["PNG", "JPEG"])}, is_output=True),
        _spec(wait, {"image": typed("IMAGE")}, is_output=True),
    )
    return specs, {load: Load, keep: Keep, wait: Wait}


def _spec(name: str, required: dict[str, object], **more: object) -> NodeSpec:
    return NodeSpec(name=name, title=name, category="gate", module=MODULE, required=required, **more)  # type: ignore[arg-type]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
