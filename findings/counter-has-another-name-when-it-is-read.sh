#!/usr/bin/env bash
# finding: a counter whose name does not end in _total is another metric once prometheus-client has read it, and is written again as that one
# about: prometheus-client (its parser of the text format), parse-prometheus-text-format (npm)
# guess: the text format (0.0.4) leaves the names of counters to whoever writes them, and a parser tells the names that are there
# concerns: a sidecar, a test or an exporter that reads the metrics of another program and looks for a name or hands it on: dashboards and alerts that go by the name find nothing
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check prometheus-client==0.26.0
npm install --silent --prefix "$folder" parse-prometheus-text-format@1.1.1

cat > "$folder/read.mjs" <<'PROGRAM'
import { readFileSync } from "node:fs";
import parse from "parse-prometheus-text-format";

console.log(JSON.stringify(parse(readFileSync(0, "utf8")).map((family) => family.name)));
PROGRAM

cat > "$folder/read.py" <<'PROGRAM'
import json
import subprocess
import sys
from importlib.metadata import version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

TEXT = """\
# HELP prompts_executed Prompts that were executed.
# TYPE prompts_executed counter
prompts_executed 5.0
# HELP gpu_bytes Bytes in use.
# TYPE gpu_bytes gauge
gpu_bytes 7.0
"""


class Read:
    def collect(self) -> list:
        return list(text_string_to_metric_families(TEXT))


registry = CollectorRegistry()
registry.register(Read())
samples = [sample.name for family in Read().collect() for sample in family.samples]
written = generate_latest(registry).decode()
other = json.loads(subprocess.check_output(["node", "read.mjs"], input=TEXT, text=True, cwd=sys.argv[1]))
print("prometheus-client", version("prometheus-client"), "parse-prometheus-text-format 1.1.1")
print("guess: prompts_executed and gpu_bytes; what is written is what was read")
print(f"seen:  prometheus-client reads {samples}, parse-prometheus-text-format {other}")
print(f"seen:  prometheus-client writes {[line for line in written.splitlines() if line[0] != '#']}")
assert samples == ["prompts_executed_total", "gpu_bytes"]
assert other == ["prompts_executed", "gpu_bytes"]
assert written == TEXT.replace("prompts_executed", "prompts_executed_total")
PROGRAM

"$python" "$folder/read.py" "$folder"
