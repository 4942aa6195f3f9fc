#!/usr/bin/env bash
# finding: @iarna/toml refuses a file in which anything follows a time of day such as 07:30:00, be it the next line, a comma or a bracket; with a blank or a fraction behind it, or at the end of the file, it is read
# about: @iarna/toml, smol-toml (npm); tomllib (Python)
# guess: "opens = 07:30:00" is a local time (TOML 1.0), wherever in the file it stands
# concerns: hours of a limit or of maintenance in a configuration that a Python service reads without complaint: the error is told of the next line, which is right; the parser steps over the character behind the seconds, whatever it is
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
npm install --silent --prefix "$folder" @iarna/toml@3.0.0 smol-toml@1.9.1

cat > "$folder/parse.mjs" <<'PROGRAM'
import { readFileSync } from "node:fs";
import iarna from "@iarna/toml";
import { parse } from "smol-toml";

const outcome = (parser, text) => {
  try {
    return Object.keys(parser(text)).join(", ");
  } catch (error) {
    return error.message.split(/[,\n]/)[0];
  }
};
const texts = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify([iarna.parse, parse].map((parser) => texts.map((text) => outcome(parser, text)))));
PROGRAM

cat > "$folder/parse.py" <<'PROGRAM'
import json
import subprocess
import sys
import tomllib

TEXTS = {
    "followed by a line": "opens = 07:30:00\nlimit = 5\n",
    "in a list": "hours = [07:30:00, 18:00:00]\n",
    "in a table": "hours = { opens = 07:30:00}\n",
    "before a comment": "opens = 07:30:00 # in the morning\nlimit = 5\n",
    "with a fraction": "opens = 07:30:00.0\nlimit = 5\n",
    "as the last": "limit = 5\nopens = 07:30:00\n",
}
command = ["node", f"{sys.argv[1]}/parse.mjs"]
found = subprocess.run(command, input=json.dumps(list(TEXTS.values())), check=True, capture_output=True, text=True).stdout
iarna, smol = json.loads(found)
names = [", ".join(tomllib.loads(text)) for text in TEXTS.values()]
print("@iarna/toml 3.0.0, smol-toml 1.9.1, tomllib of Python")
print("guess: the keys of each text")
for what, outcome, keys in zip(TEXTS, iarna, names):
    print(f"seen:  {what}: {outcome} by @iarna/toml, {keys} by the others")
assert smol == names
assert iarna[3:] == names[3:]
assert iarna[0] == "Unexpected character"
assert iarna[1] == "Invalid character"
assert iarna[2].startswith("Unterminated inline")
PROGRAM

"$python" "$folder/parse.py" "$folder"
