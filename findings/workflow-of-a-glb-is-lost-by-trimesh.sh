#!/usr/bin/env bash
# finding: trimesh keeps the extras of a scene and drops those of the asset, which is where ComfyUI's SaveGLB keeps prompt and workflow; two other libraries keep both
# about: trimesh, pygltflib, @gltf-transform/core (npm)
# guess: a GLB that is loaded and written again has its extras, wherever the format permits them
# concerns: a mesh that a script scales, repairs or merges after ComfyUI made it cannot be opened as a workflow any more, and nothing says so
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check trimesh==5.2.0 pygltflib==1.16.5 numpy==2.4.6
npm install --silent --prefix "$folder" @gltf-transform/core@4.5.1

cat > "$folder/again.mjs" <<'PROGRAM'
import { NodeIO } from "@gltf-transform/core";

const io = new NodeIO();
await io.write("again.glb", await io.read("made.glb"));
PROGRAM

cat > "$folder/compare.py" <<'PROGRAM'
import json
import struct
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy
import pygltflib
import trimesh

folder = Path(sys.argv[1])
PLACES = ("asset", "scene")


def made() -> bytes:
    """One triangle, laid out as ComfyUI's SaveGLB does it, with extras in both places."""
    points = numpy.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()
    corners = numpy.arange(3, dtype="<u4").tobytes()
    document = {
        "asset": {"version": "2.0", "generator": "ComfyUI", "extras": {"workflow": '{"nodes": []}'}},
        "buffers": [{"byteLength": len(points + corners)}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": len(points), "target": 34962},
            {"buffer": 0, "byteOffset": len(points), "byteLength": len(corners), "target": 34963},
        ],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 0]},
            {"bufferView": 1, "componentType": 5125, "count": 3, "type": "SCALAR"},
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "mode": 4}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0], "extras": {"note": "of the scene"}}],
        "scene": 0,
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(points + corners), b"BIN\0") + points + corners
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def places(data: bytes) -> list[str]:
    document = json.loads(data[20 : 20 + struct.unpack_from("<I", data, 12)[0]])
    extras = document["asset"].get("extras"), document["scenes"][0].get("extras")
    return [place for place, found in zip(PLACES, extras) if found]


(folder / "made.glb").write_bytes(made())
subprocess.run(["node", "again.mjs"], cwd=folder, check=True)
seen = {
    f"trimesh {version('trimesh')}": places(trimesh.load(folder / "made.glb").export(file_type="glb")),
    f"pygltflib {version('pygltflib')}": places(b"".join(pygltflib.GLTF2().load(folder / "made.glb").save_to_bytes())),
    "@gltf-transform/core 4.5.1": places((folder / "again.glb").read_bytes()),
}
print(f"guess: the extras of {' and '.join(PLACES)} are there after each of them")
for name, kept in seen.items():
    print(f"seen:  {name}: those of {' and '.join(kept)}")
assert places(made()) == ["asset", "scene"]
assert list(seen.values()) == [["scene"], ["asset", "scene"], ["asset", "scene"]]
PROGRAM

"$python" "$folder/compare.py" "$folder"
