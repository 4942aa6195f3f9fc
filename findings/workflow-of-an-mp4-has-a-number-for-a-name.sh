#!/usr/bin/env bash
# finding: three readers of tags find the workflow in ComfyUI's kind of MP4 under the key "\x00\x00\x00\x02", since they do not look its name up
# about: mutagen, tinytag, music-metadata (npm), with a file that PyAV writes
# guess: what was written as "workflow" is read as "workflow", or not at all
# concerns: galleries and indexers of MP4 files: a search for the key finds nothing, and the number says only which of the keys it was, so that it is another one where the file has other keys before it
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check av==18.1.0 numpy==2.4.6 mutagen==1.48.1 tinytag==2.3.2
npm install --silent --prefix "$folder" music-metadata@11.16.1

cat > "$folder/write.py" <<'PROGRAM'
import sys

import av
import numpy

with av.open(sys.argv[1], "w", options={"movflags": "use_metadata_tags"}) as out:
    out.metadata["prompt"] = "{}"
    out.metadata["workflow"] = '{"nodes": []}'
    stream = out.add_stream("libx264", rate=8, width=64, height=64, pix_fmt="yuv420p")
    for frame in (av.VideoFrame.from_ndarray(numpy.full((64, 64, 3), 99, "uint8"), "rgb24"), None):
        out.mux(stream.encode(frame))
PROGRAM

cat > "$folder/read.mjs" <<'PROGRAM'
import { parseFile } from "music-metadata";
const { native } = await parseFile(process.argv[2]);
console.log(JSON.stringify(Object.values(native).flat().filter(({ value }) => value?.includes?.("nodes")).map(({ id }) => id)));
PROGRAM

cat > "$folder/read.py" <<'PROGRAM'
import json
import sys
from importlib.metadata import version

import av
import mutagen
from tinytag import TinyTag

path, by_node = sys.argv[1], json.loads(sys.argv[2])
with av.open(path) as file:
    by_av = [key for key, value in file.metadata.items() if "nodes" in value]
seen = {
    "mutagen": [key for key, values in mutagen.File(path).tags.items() if "nodes" in values[0]],
    "tinytag": [key for key, values in TinyTag.get(path).as_dict().items() if "nodes" in str(values)],
    "music-metadata": by_node,
}
print(", ".join(f"{name} {version(name)}" for name in ("av", "mutagen", "tinytag")), "music-metadata 11.16.1")
print(f"guess: {by_av}, as FFmpeg reads it")
for name, keys in seen.items():
    print(f"seen:  {name}: {keys}")
assert by_av == ["workflow"]
assert all(keys == ["\0\0\0\2"] for keys in seen.values())
PROGRAM

"$python" "$folder/write.py" "$folder/video.mp4" 2> "$folder/log"
"$python" "$folder/read.py" "$folder/video.mp4" "$(cd "$folder" && node read.mjs video.mp4)"
