"""Renews the presets from an /object_info: shows the classes that a new ComfyUI adds, and files them where somebody has to look at them.

    python -m tools.presets object_info.json          # shows; exit 1 when a class is new
    python -m tools.presets object_info.json --write  # files new ones: api-nodes.toml, or unclassified.toml

No class gets into a preset for local work by itself: a person moves it from unclassified.toml, or into excluded.toml with a reason.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import tomlkit

from policy.catalogue import Catalogue, NodeClass, read_catalogue
from policy.lint import RISKY_INPUTS, list_every_input
from proxy.config.presets import NAMES, load_excluded, load_presets, load_unclassified, read_text

_FOLDER: Final = Path(__file__).parents[1] / "policy" / "presets"
_FILE_MARKS: Final = ("image_upload", "video_upload", "audio_upload", "file_upload", "image_folder", "remote")


@dataclass(frozen=True, slots=True)
class NewClass:
    """marks: why somebody should look. suggestion: where most classes of its module stand."""

    name: str
    module: str
    is_api_node: bool
    marks: tuple[str, ...]
    suggestion: str


def find_new(catalogue: Catalogue) -> list[NewClass]:
    """ComfyUI's own classes that stand nowhere yet. Custom nodes are the operator's matter."""
    homes = list_homes()
    by_module: dict[str, Counter[str]] = {}
    for name, node_class in catalogue.classes.items():
        if name in homes:
            by_module.setdefault(node_class.python_module, Counter())[homes[name]] += 1
    return [
        NewClass(
            name,
            node_class.python_module,
            is_api(node_class),
            tuple(mark_risks(node_class)),
            _suggest(node_class, by_module),
        )
        for name, node_class in sorted(catalogue.classes.items())
        if name not in homes and not node_class.python_module.startswith("custom_nodes")
    ]


def list_homes() -> dict[str, str]:
    """The file that each known class stands in."""
    homes = {name: preset for preset, names in load_presets().items() for name in names}
    homes.update(dict.fromkeys(load_excluded(), "excluded"))
    homes.update(dict.fromkeys(load_unclassified(), "unclassified"))
    return homes


def is_api(node_class: NodeClass) -> bool:
    return node_class.is_api_node or node_class.python_module.startswith("comfy_api_nodes")


def _suggest(node_class: NodeClass, by_module: Mapping[str, Counter[str]]) -> str:
    if is_api(node_class):
        return "api-nodes"
    homes = by_module.get(node_class.python_module)
    return homes.most_common(1)[0][0] if homes else "unclassified"


def mark_risks(node_class: NodeClass) -> list[str]:
    """What deserves a look before the class gets into a preset."""
    marks = ["calls a paid service"] if node_class.is_api_node else []
    if node_class.is_output_node:
        marks.append("output node")
    for name, spec in list_every_input(node_class).items():
        words = name.rpartition(".")[2].lower()
        marks += [f"{kind}: {name}" for kind, risky in RISKY_INPUTS.items() if spec.type == "STRING" and words in risky]
        marks += [f"{mark}: {name}" for mark in _FILE_MARKS if spec.options.get(mark)]
    return marks


def find_gone(catalogue: Catalogue) -> list[str]:
    """Classes of the presets that this ComfyUI does not have; they stay, since another version has them."""
    return sorted(name for preset in load_presets().values() for name in preset if name not in catalogue.classes)


def file_new(new: Sequence[NewClass], folder: Path) -> None:
    """Adds new classes to api-nodes.toml and unclassified.toml, by module, keeping what stands there and its comments."""
    for file_name in ("api-nodes", "unclassified"):
        found = [item for item in new if item.is_api_node == (file_name == "api-nodes")]
        if not found:
            continue
        document = tomlkit.parse(read_text(file_name))
        for item in found:
            group = item.module.rpartition(".")[2].removeprefix("nodes_")
            if group not in document:
                document.add(tomlkit.nl())
                document.add(tomlkit.comment(f"From {item.module}: new, look at it."))
                document.add(group, tomlkit.array().multiline(True))
            document[group].append(item.name)
        (folder / f"{file_name}.toml").write_text(tomlkit.dumps(document), encoding="utf-8")


def describe(new: Sequence[NewClass], gone: Sequence[str]) -> str:
    lines = [f"{len(new)} new classes, {len(gone)} of the presets are not in this ComfyUI"]
    for item in new:
        marks = f" [{'; '.join(item.marks)}]" if item.marks else ""
        lines.append(f"+ {item.name} ({item.module}): {item.suggestion}?{marks}")
    lines += [f"- {name}" for name in gone]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, folder: Path = _FOLDER) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.presets", description="Renews the presets.")
    parser.add_argument("object_info", type=Path, help="the answer of GET /object_info, saved to a file")
    parser.add_argument("--write", action="store_true", help=f"file new classes ({', '.join(NAMES)} or unclassified)")
    options = parser.parse_args(arguments)
    document: Any = orjson.loads(options.object_info.read_bytes())
    catalogue = read_catalogue(document)
    if not catalogue.classes:
        print(f"{options.object_info} is not an answer of GET /object_info", file=sys.stderr)
        return 2
    new = find_new(catalogue)
    print(describe(new, find_gone(catalogue)))
    if options.write:
        file_new(new, folder)
        return 0
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
