#!/usr/bin/env bash
# finding: a value with a space that OpenTelemetry for Python puts into the header "baggage" has a plus in its place for OpenTelemetry for JavaScript
# about: opentelemetry-api (Python), @opentelemetry/core (npm)
# guess: W3C Baggage has percent-encoding, where a space is %20 and a plus is a plus, so both libraries read what either wrote
# concerns: whoever hands a tenant's or a workflow's name from a Python service to a Node service, or back: a span is labelled "my+workflow", and the other way round a plus that any third library left as it is becomes a space
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check opentelemetry-api==1.45.2
npm install --silent --prefix "$folder" @opentelemetry/core@2.12.1 @opentelemetry/api@1.9.1

cat > "$folder/other.mjs" <<'PROGRAM'
import { ROOT_CONTEXT, defaultTextMapGetter, defaultTextMapSetter, propagation } from "@opentelemetry/api";
import { W3CBaggagePropagator } from "@opentelemetry/core";

const [header, value] = process.argv.slice(2);
const propagator = new W3CBaggagePropagator();
const written = {};
const baggage = propagation.createBaggage({ workflow: { value } });
propagator.inject(propagation.setBaggage(ROOT_CONTEXT, baggage), written, defaultTextMapSetter);
const context = propagator.extract(ROOT_CONTEXT, { baggage: header }, defaultTextMapGetter);
const read = propagation.getBaggage(context).getEntry("workflow").value;
console.log(JSON.stringify({ written: written.baggage, read }));
PROGRAM

cat > "$folder/both.py" <<'PROGRAM'
import json
import subprocess
import sys
from importlib.metadata import version

from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator

VALUE = "my workflow"
written: dict[str, str] = {}
W3CBaggagePropagator().inject(written, context=baggage.set_baggage("workflow", VALUE))
header = written["baggage"]
other = json.loads(subprocess.check_output(["node", "other.mjs", header, VALUE], cwd=sys.argv[1]))


def read(text: str) -> object:
    return baggage.get_baggage("workflow", W3CBaggagePropagator().extract({"baggage": text}))


print("opentelemetry-api", version("opentelemetry-api"), "@opentelemetry/core 2.12.1")
print(f"guess: both write workflow=my%20workflow, and both read {VALUE!r} out of it")
print(f"seen:  Python writes {header!r}, and JavaScript reads {other['read']!r} out of it")
print(f"seen:  JavaScript writes {other['written']!r}, and Python reads {read(other['written'])!r} out of it")
print(f"seen:  'workflow=a+b' is {read('workflow=a+b')!r} in Python")
assert header == "workflow=my+workflow"
assert other["read"] == "my+workflow"
assert read(other["written"]) == VALUE
assert read("workflow=a+b") == "a b"
PROGRAM

"$python" "$folder/both.py" "$folder"
