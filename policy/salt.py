"""Keeps the tenants apart in ComfyUI's execution cache, which is shared by everybody and knows a node by its class, its literals and its
ancestors (comfy_execution/caching.py). Trusts ComfyUI's description of its classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, Final

from policy.catalogue import NodeClass
from policy.outputs import reach
from policy.workflow import is_link

SALT: Final = "comfygate_tenant"
"""An input that no class declares. ComfyUI puts it into the key of its execution cache and never gives it to a class whose inputs it knows."""

_CORE_MODULES = frozenset({"nodes", "comfy_extras", "comfy_api_nodes"})
# What loaders make: results that hold nothing of a tenant's, and that make the GPU fast when they are shared.
_MODEL_WORDS = (
    "MODEL CLIP VAE CLIP_VISION CONTROL_NET STYLE_MODEL GLIGEN UPSCALE_MODEL LATENT_UPSCALE_MODEL MODEL_PATCH PHOTOMAKER "
    "AUDIO_ENCODER INTERP_MODEL OPTICAL_FLOW BACKGROUND_REMOVAL MOGE_MODEL DA3_MODEL FACE_DETECTION_MODEL"
)
_MODEL_TYPES = frozenset(_MODEL_WORDS.split())
# It is given every input, declared or not (nodes_logic.py, accept_all_inputs); it makes no files.
_TAKES_ALL_INPUTS = frozenset({"CustomCombo"})


def is_core(node_class: NodeClass) -> bool:
    return node_class.python_module.partition(".")[0] in _CORE_MODULES


def takes_salt(node_class: NodeClass) -> bool:
    """Whether the class never sees the salt. A class from outside may claim every input as an argument, and no description says so."""
    return is_core(node_class) and node_class.name not in _TAKES_ALL_INPUTS


def needs_salt(node_class: NodeClass, has_files: bool) -> bool:
    """Whether a node's result must never be another tenant's: all but loaders of models, and what classes from outside make of other nodes.

    ComfyUI's own nodes are salted, so that what a node from outside makes of them is the tenant's too.
    """
    if has_files or node_class.is_output_node or node_class.document.get("has_intermediate_output") is True:
        return True
    if not takes_salt(node_class):
        return False
    return not node_class.outputs or not _MODEL_TYPES.issuperset(map(str, node_class.outputs))


def salt_nodes(
    nodes: dict[str, dict[str, Any]],
    needing: Iterable[str],
    own: Iterable[str],
    class_of: Callable[[str], NodeClass],
    tenant: str,
) -> None:
    """Salts nodes, so that every one of `needing` is the tenant's own.

    own: nodes whose literals hold the tenant's folder already. A node whose class must not see the salt is apart as soon as one of its
    ancestors is: where none is, those that it links to are salted, though loaders among them are then not shared. A node of such a
    class without ancestors and files cannot be kept apart here; what it shows is looked at in rules/results.py.
    """
    apart = set(own)
    waiting = []
    for node_id in needing:
        if takes_salt(class_of(node_id)):
            _salt(nodes, node_id, tenant)
            apart.add(node_id)
        elif node_id not in apart:
            waiting.append(node_id)
    if waiting:
        _salt_ancestors(nodes, waiting, apart, class_of, tenant)


def _salt_ancestors(
    nodes: dict[str, dict[str, Any]],
    waiting: Iterable[str],
    apart: Set[str],
    class_of: Callable[[str], NodeClass],
    tenant: str,
) -> None:
    """For each of `waiting` that needs none of `apart`: salts the nearest of its ancestors that takes the salt."""
    # SECURITY: a link that stands a thousand times in a node counts once (test_salt.py::test_many_links_and_long_chains_take_little_time).
    sources = {
        node_id: tuple({value[0]: None for value in node["inputs"].values() if is_link(value)})
        for node_id, node in nodes.items()
    }
    users: dict[str, list[str]] = {}
    for node_id, targets in sources.items():
        for target in targets:
            users.setdefault(target, []).append(node_id)
    apart = reach(apart, users)
    barren: set[str] = set()
    for node_id in waiting:
        if node_id in apart:
            continue
        ancestors = list_ancestors(sources, node_id, barren)
        nearest = next((ancestor for ancestor in ancestors if takes_salt(class_of(ancestor))), None)
        if nearest is None:
            barren.update(ancestors)
        else:
            _salt(nodes, nearest, tenant)
            apart |= reach([nearest], users)


def _salt(nodes: dict[str, dict[str, Any]], node_id: str, tenant: str) -> None:
    nodes[node_id]["inputs"][SALT] = tenant


def list_ancestors(sources: Mapping[str, Iterable[str]], node_id: str, barren: Set[str]) -> list[str]:
    """The nodes that a node needs, nearest first, without `barren` ones: those of which, and of whose ancestors, none takes the salt."""
    found: dict[str, None] = {node_id: None}
    for waiting in (order := [node_id]):
        for source in sources[waiting]:
            if source not in found and source not in barren:
                found[source] = None
                order.append(source)
    return order[1:]
