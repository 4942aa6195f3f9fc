"""The node classes that the stand-in knows: what GET /object_info lists and what POST /prompt accepts."""

from __future__ import annotations

from typing import Any

from standin.catalogue.image import IMAGE_NODES
from standin.catalogue.media import MEDIA_NODES
from standin.catalogue.model import MODEL_NODES
from standin.catalogue.text import TEXT_NODES
from standin.folders import Folders
from standin.specs import NodeSpec

CATALOGUE: dict[str, NodeSpec] = {
    spec.name: spec for nodes in (IMAGE_NODES, MODEL_NODES, TEXT_NODES, MEDIA_NODES) for spec in nodes
}


def describe_all(folders: Folders) -> dict[str, Any]:
    return {name: spec.describe(folders) for name, spec in CATALOGUE.items()}
