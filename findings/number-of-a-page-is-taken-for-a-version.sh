#!/usr/bin/env bash
# finding: given the address of a model's page on Civitai, this downloader takes the model's number for the number of a version, and fetches whatever model has that version
# about: comfydl
# guess: the newest version of that model, or an error: its list of features has "Model ID, Version ID, URLs", its examples a page with modelVersionId; models and versions are numbered apart
# concerns: whoever copies the address from the browser: with -y another model of another kind is put into another folder, and the workflow's one is still missing
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfydl==0.1.9

HOME="$folder" "$python" - "$folder" <<'PROGRAM'
import contextlib
import io
import sys
from importlib.metadata import version

from comfydl import civitai

SITE = "https:" + "//civitai.com"
MODEL, VERSION = 4384, 128713  # of one model
GIVEN = {
    "its page": f"{SITE}/models/{MODEL}/dreamshaper",
    "its page with a version": f"{SITE}/models/{MODEL}/dreamshaper?modelVersionId={VERSION}",
    "its resource identifier": f"urn:air:sd1:checkpoint:civitai:{MODEL}@{VERSION}",
    "its download": f"{SITE}/api/download/models/{VERSION}",
}
asked: list[str] = []


def no_network(address: str, **options: object) -> None:
    """Stands where the library asks Civitai, and notes what it asks for."""
    asked.append(address.rpartition("/api/")[2])
    raise civitai.requests.exceptions.ConnectionError


civitai.requests.get = no_network
for address in GIVEN.values():
    with contextlib.redirect_stdout(io.StringIO()):
        civitai.process_civitai_download(address, sys.argv[1], downloader="wget", skip_prompt=True)
seen = dict(zip(GIVEN, asked, strict=True))
print("comfydl", version("comfydl"))
print(f"guess: v1/models/{MODEL} for the page, v1/model-versions/{VERSION} for the others")
for name, path in seen.items():
    print(f"seen:  {name}: {path}")
assert seen.pop("its page") == f"v1/model-versions/{MODEL}"
assert set(seen.values()) == {f"v1/model-versions/{VERSION}"}
PROGRAM
