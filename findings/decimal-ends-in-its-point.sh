#!/usr/bin/env bash
# finding: this serialiser of structured fields writes 0.9999 as "1.", which its own parser and another library's refuse, and with it the whole field
# about: structured-headers (npm), http-sf (Python)
# guess: "1.0": a decimal has one digit at least after its point (RFC 9651, section 4.1.5), and a serialiser throws where it cannot write a value
# concerns: whoever sends a computed share or weight in a header: each value that rounds to a whole number takes the field's other members with it
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check http-sf==1.5.0
npm install --silent --prefix "$folder" structured-headers@2.1.0

cat > "$folder/write.mjs" <<'PROGRAM'
import { parseDictionary, serializeDictionary } from "structured-headers";

const seen = [1 / 3, 0.9999, 2.0001, 0.0001].map((share) => {
  const text = serializeDictionary({ share, unit: "gpu" });
  let isRead = true;
  try {
    parseDictionary(text);
  } catch {
    isRead = false;
  }
  return { text, isRead };
});
console.log(JSON.stringify(seen));
PROGRAM

cat > "$folder/compare.py" <<'PROGRAM'
import json
import subprocess
import sys
from importlib.metadata import version

import http_sf


def is_read(text: str) -> bool:
    try:
        http_sf.parse(text.encode(), tltype="dictionary")
    except http_sf.StructuredFieldError:
        return False
    return True


written = json.loads(subprocess.run(["node", "write.mjs"], cwd=sys.argv[1], check=True, capture_output=True).stdout)
print("structured-headers 2.1.0, http-sf", version("http-sf"))
print('guess: share=0.333, share=1.0, share=2.0, share=0.0, each with unit="gpu", and each of them is read again')
for field in written:
    print(f"seen:  {field['text']} is read by itself: {field['isRead']}, by http-sf: {is_read(field['text'])}")
assert [field["text"].partition(",")[0] for field in written] == ["share=0.333", "share=1.", "share=2.", "share=0."]
assert [field["isRead"] for field in written] == [True, False, False, False]
assert [is_read(field["text"]) for field in written] == [True, False, False, False]
assert http_sf.ser({"share": 0.9999}) == "share=1.0", "what the other library writes"
PROGRAM

"$python" "$folder/compare.py" "$folder"
