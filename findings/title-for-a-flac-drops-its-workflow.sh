#!/usr/bin/env bash
# finding: metaflac-js2 finds no tag in any FLAC, and whoever adds one with it and saves has taken all others out, the workflow of ComfyUI among them; metaflac-js, from which it comes, reads and keeps them
# about: metaflac-js2, metaflac-js (npm); PyAV (FFmpeg) writes the file, mutagen reads it
# guess: getTag() and getAllTags() tell what is in the file, and setTag() adds to it, as its description has it
# concerns: a service that puts a title or an artist to the sounds that ComfyUI saved: prompt and workflow are gone from the file, and nothing says so; in the package the lines that read the tags and the pictures are a comment
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check av==18.1.0 numpy==2.4.6 mutagen==1.48.1
npm install --silent --prefix "$folder" metaflac-js2@1.0.8 metaflac-js@1.0.5

cat > "$folder/title.mjs" <<'PROGRAM'
const { default: Metaflac } = await import(process.argv[2]);
const sound = new Metaflac(process.argv[3]);
console.log(sound.getTag("workflow") || "nothing");
sound.setTag("TITLE=Rain");
sound.save();
PROGRAM

cat > "$folder/title.py" <<'PROGRAM'
import shutil
import subprocess
import sys
from pathlib import Path

import av
import mutagen
import numpy

folder = Path(sys.argv[1])
original = folder / "original.flac"
METADATA = {"prompt": '{"1": {}}', "workflow": '{"nodes": []}'}


def write() -> None:
    """As ComfyUI's SaveAudio does it."""
    with av.open(original, "w") as container:
        container.metadata.update(METADATA)
        stream = container.add_stream("flac", rate=44100)
        frame = av.AudioFrame.from_ndarray(numpy.zeros((1, 44100), "f4"), format="fltp", layout="mono")
        frame.sample_rate = 44100
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def titled(package: str) -> tuple[str, list[str]]:
    """What the package reads as workflow, and the names of the tags after it has put a title in."""
    path = folder / f"{package}.flac"
    shutil.copy(original, path)
    read = subprocess.run(["node", "title.mjs", package, path], cwd=folder, check=True, capture_output=True, text=True).stdout
    return read.strip(), sorted(name.lower() for name in mutagen.File(path).tags.as_dict())


write()
print("guess: the workflow is read, and the tags are encoder, prompt, title, workflow")
seen = {package: titled(package) for package in ("metaflac-js2", "metaflac-js")}
for package, (read, names) in seen.items():
    print(f"seen:  {package}: reads {read}, and leaves {', '.join(names)}")
assert seen["metaflac-js2"] == ("nothing", ["title"])
assert "workflow" in seen["metaflac-js"][0] or "nodes" in seen["metaflac-js"][0]
assert seen["metaflac-js"][1] == ["encoder", "prompt", "title", "workflow"]
PROGRAM

"$python" "$folder/title.py" "$folder"
