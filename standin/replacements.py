"""Old class names that ComfyUI 0.33 turns into new ones before it validates a prompt (GET /node_replacements)."""

from __future__ import annotations

from typing import Any

from standin.catalogue import CATALOGUE
from standin.graph import Graph


def _renamed(old: str, new: str, inputs: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    entry = {"new_node_id": new, "old_node_id": old, "old_widget_ids": None, "input_mapping": inputs}
    return entry | {"output_mapping": None} | more


def _from(new_id: str, old_id: str) -> dict[str, Any]:
    return {"new_id": new_id, "old_id": old_id}


REPLACEMENTS: dict[str, list[dict[str, Any]]] = {
    "ResizeImagesByLongerEdge": [
        _renamed(
            "ResizeImagesByLongerEdge",
            "ImageScaleToMaxDimension",
            [
                _from("image", "images"),
                _from("largest_size", "longer_edge"),
                {"new_id": "upscale_method", "set_value": "lanczos"},
            ],
            old_widget_ids=["longer_edge"],
            output_mapping=[{"new_idx": 0, "old_idx": 0}],
        )
    ],
    "ImageBatch": [
        _renamed("ImageBatch", "BatchImagesNode", [_from("images.image0", "image1"), _from("images.image1", "image2")])
    ],
    "ImageScaleBy": [
        _renamed(
            "ImageScaleBy",
            "ResizeImageMaskNode",
            [
                _from("input", "image"),
                {"new_id": "resize_type", "set_value": "scale by multiplier"},
                _from("resize_type.multiplier", "scale_by"),
                _from("scale_method", "upscale_method"),
            ],
            old_widget_ids=["upscale_method", "scale_by"],
        )
    ],
    "T2IAdapterLoader": [
        _renamed("T2IAdapterLoader", "ControlNetLoader", [_from("control_net_name", "t2i_adapter_name")])
    ],
    "Load3DAnimation": [_renamed("Load3DAnimation", "Load3D")],
    "Preview3DAnimation": [_renamed("Preview3DAnimation", "Preview3D")],
    "SDV_img2vid_Conditioning": [_renamed("SDV_img2vid_Conditioning", "SVD_img2vid_Conditioning")],
    "ConditioningAverage ": [_renamed("ConditioningAverage ", "ConditioningAverage")],
}


def replace_classes(graph: Graph) -> None:
    """Changes the graph in place; only classes that are unknown and whose replacement is known. Needs `_meta`, or
    raises KeyError as ComfyUI does."""
    unknown = []
    for node_id, node in graph.items():
        if "class_type" in node and "inputs" in node:
            node["inputs"].items()  # ComfyUI walks the inputs of every node here: no object, no answer but 500
            if _is_replaceable(node["class_type"]):
                unknown.append(node_id)
    for node_id in unknown:
        node = graph[node_id]
        replacement = REPLACEMENTS[node["class_type"]][0]
        inputs = {
            each["new_id"]: each["set_value"] if "set_value" in each else node["inputs"][each["old_id"]]
            for each in replacement["input_mapping"] or []
        }
        new = {"class_type": replacement["new_node_id"], "inputs": inputs, "_meta": dict(node["_meta"])}
        graph[node_id] = {**node, **new}


def _is_replaceable(class_type: Any) -> bool:
    if class_type in CATALOGUE or class_type not in REPLACEMENTS:
        return False
    return REPLACEMENTS[class_type][0]["new_node_id"] in CATALOGUE
