#!/usr/bin/env bash
# finding: a table that is appended to an array of tables gets between the next table and its comment
# about: tomlkit
# guess: a library that keeps comments keeps them above what they describe
# concerns: programs that add an entry to a configuration which a person wrote and explained
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check tomlkit==0.15.2

"$python" - <<'PROGRAM'
import tomlkit

TEXT = """\
[[keys]]
id = "a"

# How often a key may call.
[limits]
requests = 5
"""
document = tomlkit.parse(TEXT)
key = tomlkit.table()
key["id"] = "b"
document["keys"].append(key)
written = tomlkit.dumps(document)
print("tomlkit", tomlkit.__version__)
print("guess: the comment stands above [limits] still")
print("seen:")
print(written)
lines = [line for line in written.splitlines() if line]
comment = lines.index("# How often a key may call.")
assert lines[comment + 1] == "[[keys]]", "the comment describes the new key now"
assert tomlkit.parse(written) == {"keys": [{"id": "a"}, {"id": "b"}], "limits": {"requests": 5}}, "the values are right"
PROGRAM
