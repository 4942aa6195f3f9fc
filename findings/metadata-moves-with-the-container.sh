#!/usr/bin/env bash
# finding: what PyAV is given as metadata of a file comes back under its name, in capitals, in the stream's place, or not at all, as the container has it
# about: PyAV (FFmpeg)
# guess: container.metadata["workflow"] that was written can be read as container.metadata["workflow"]
# concerns: ComfyUI saves prompt and workflow of videos and sounds in this way: a reader that was tried with FLAC finds nothing in Opus and WebM, and what is converted to WAV, M4A or a plain MP4 has lost them without a word
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check av==18.1.0 numpy==2.4.6

"$python" - <<'PROGRAM'
import io

import av
import numpy

TEXT = '{"nodes": []}'
SECOND = 48000


def frames_of(stream: av.stream.Stream) -> list[av.frame.Frame]:
    """A short silence, or one grey picture."""
    if stream.type == "video":
        return [av.VideoFrame.from_ndarray(numpy.full((64, 64, 3), 99, "uint8"), "rgb24")]
    silence = av.AudioFrame.from_ndarray(numpy.zeros((2, SECOND // 4), "float32"), "fltp", "stereo")
    silence.sample_rate, silence.pts = SECOND, 0
    return av.AudioResampler(stream.format.name, "stereo", SECOND).resample(silence)


def place_of_metadata(container: str, codec: str, **options: str) -> str:
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as out:
        out.metadata["workflow"] = TEXT
        stream = out.add_stream(codec, rate=8 if codec in ("libx264", "libvpx-vp9") else SECOND)
        if stream.type == "video":
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
        else:
            stream.layout = "stereo"
        for frame in [*frames_of(stream), None]:
            out.mux(stream.encode(frame))
    file.seek(0)
    with av.open(file) as read:
        for where, found in (("container", read.metadata), ("stream", read.streams[0].metadata)):
            for key, value in found.items():
                if value == TEXT:
                    return f"{where}: {key}"
    return "nowhere"


av.logging.set_level(av.logging.PANIC)
CASES = {
    "FLAC": ("container: workflow", ("flac", "flac"), {}),
    "MP3": ("container: workflow", ("mp3", "libmp3lame"), {}),
    "Opus": ("stream: workflow", ("opus", "libopus"), {}),
    "WebM": ("container: WORKFLOW", ("webm", "libvpx-vp9"), {}),
    "MP4 with use_metadata_tags": ("container: workflow", ("mp4", "libx264"), {"movflags": "use_metadata_tags"}),
    "MP4": ("nowhere", ("mp4", "libx264"), {}),
    "M4A": ("nowhere", ("ipod", "aac"), {}),
    "WAV": ("nowhere", ("wav", "pcm_s16le"), {}),
}
seen = {name: place_of_metadata(*how, **options) for name, (_, how, options) in CASES.items()}
print("av", av.__version__, "with FFmpeg", av.ffmpeg_version_info)
print("guess: container: workflow, in each of them")
for name, place in seen.items():
    print(f"seen:  {name}: {place}")
assert seen == {name: place for name, (place, _, _) in CASES.items()}
PROGRAM
