#!/usr/bin/env bash
# finding: music-metadata cuts the workflow in an MP3 with tags of ID3v2.3 at every "/", so that it is as many values as it has paths; of ID3v2.4, FLAC and Opus it reads the whole, as two other readers do of all
# about: music-metadata (npm), mutagen, tinytag; PyAV (FFmpeg) writes the files
# guess: one frame is one value: ID3v2.3 has "/" between the names of artists and authors (TPE1, TCOM, TEXT and the like), and no such thing for TXXX; the package cuts that too, because one tagger can join several values with a slash
# concerns: whoever keeps or looks up ComfyUI's prompt in sounds that were saved for players of ID3v2.3 (Windows, -id3v2_version 3): JSON.parse fails as soon as a model or an output stands in a subfolder, "sdxl/base.safetensors", and the first of the values is half a text
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check av==18.1.0 numpy==2.4.6 mutagen==1.48.1 tinytag==2.3.2
npm install --silent --prefix "$folder" music-metadata@12.1.0

cat > "$folder/read.mjs" <<'PROGRAM'
import { parseFile } from "music-metadata";

const { native } = await parseFile(process.argv[2]);
const tags = Object.values(native).flat();
console.log(JSON.stringify(tags.filter(({ id }) => /workflow$/i.test(id)).map(({ value }) => value)));
PROGRAM

cat > "$folder/read.py" <<'PROGRAM'
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import av
import mutagen
import numpy
from tinytag import TinyTag

folder = Path(sys.argv[1])
WORKFLOW = json.dumps({"nodes": [{"widgets_values": ["sdxl/base.safetensors"]}, {"widgets_values": ["audio/ComfyUI"]}]})
FORMATS = {
    "ID3v2.3": ("three.mp3", "libmp3lame", {"id3v2_version": "3"}),
    "ID3v2.4": ("four.mp3", "libmp3lame", {}),
    "FLAC": ("sound.flac", "flac", {}),
    "Opus": ("sound.opus", "libopus", {}),
}


def write(path: Path, codec: str, options: dict[str, str]) -> None:
    with av.open(path, "w", options=options) as container:
        container.metadata["workflow"] = WORKFLOW
        stream = container.add_stream(codec, rate=48000)
        frame = av.AudioFrame.from_ndarray(numpy.zeros((1, 48000), "f4"), format="fltp", layout="mono")
        frame.sample_rate = 48000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def by_mutagen(path: Path) -> list[str]:
    tags = mutagen.File(path).tags
    return tags["TXXX:workflow"].text if path.suffix == ".mp3" else tags["workflow"]


def by_music_metadata(path: Path) -> list[str]:
    return json.loads(subprocess.run(["node", "read.mjs", path], cwd=folder, check=True, capture_output=True, text=True).stdout)


print("guess: the workflow as one value, from each of the files")
for name, (file, codec, options) in FORMATS.items():
    write(folder / file, codec, options)
    seen = [by_mutagen(folder / file), TinyTag.get(folder / file).other["workflow"], by_music_metadata(folder / file)]
    names = (f"mutagen {version('mutagen')}", f"tinytag {version('tinytag')}", "music-metadata 12.1.0")
    print(f"seen:  {name}: " + ", ".join(f"{len(values)} by {reader}" for reader, values in zip(names, seen)))
    assert seen == [[WORKFLOW], [WORKFLOW], WORKFLOW.split("/") if name == "ID3v2.3" else [WORKFLOW]]
print("seen:  of ID3v2.3:", by_music_metadata(folder / "three.mp3"))
PROGRAM

"$python" "$folder/read.py" "$folder"
