"""A call of a function as one pastes it: for curl, Python and TypeScript. The key comes from the environment; it stands in none of them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any, Final

from policy.functions.function import Function
from policy.openapi.examples import ExampleCall, example_call
from policy.v2.links import Links

KEY: Final = "COMFYGATE_KEY"
_PYTHON: Final = """\
import os
import time
from pathlib import Path

import requests

gate = {gate}
session = requests.Session()
session.headers["Authorization"] = f"Bearer {{os.environ['{key}']}}"


def job_of(answer):
    if not answer.ok:
        raise SystemExit(answer.text)
    return answer.json()


job = job_of(
    session.post(
        f"{{gate}}/gate/run/{name}",
{body}
        headers={{"Prefer": "wait=90"}},
    )
)
while job["status"] in ("queued", "running", "canceling"):
    time.sleep(2)
    job = job_of(session.get(f"{{gate}}/gate/jobs/{{job['id']}}"))
if job["status"] != "succeeded":
    raise SystemExit(f"{{job['status']}}: {{job['error']}}")
for output in job["outputs"]:
    Path(output["name"]).write_bytes(session.get(output["url"]).content)
    print(output["name"])
"""
_TYPESCRIPT: Final = """\
import {{ {imports} }} from "node:fs/promises";

type Job = {{ id: string; status: string; error: unknown; outputs: {{ name: string; url: string }}[] }};

const gate = {gate};
const headers = {{ Authorization: `Bearer ${{process.env.{key}}}` }};

async function jobOf(answer: Response): Promise<Job> {{
  if (!answer.ok) throw new Error(await answer.text());
  return await answer.json();
}}

{before}let job = await jobOf(
  await fetch(`${{gate}}/gate/run/{name}`, {{
    method: "POST",
{body}
  }}),
);
while (["queued", "running", "canceling"].includes(job.status)) {{
  await new Promise((resolve) => setTimeout(resolve, 2000));
  job = await jobOf(await fetch(`${{gate}}/gate/jobs/${{job.id}}`, {{ headers }}));
}}
if (job.status !== "succeeded") throw new Error(`${{job.status}}: ${{JSON.stringify(job.error)}}`);
for (const output of job.outputs) {{
  const file = await fetch(output.url, {{ headers }});
  await writeFile(output.name, new Uint8Array(await file.arrayBuffer()));
  console.log(output.name);
}}
"""


def scripts_of(function: Function, links: Links) -> dict[str, str]:
    """By language. Each saves what the function gives into the folder that it is run in."""
    call, gate = example_call(function), links.origin + links.prefix
    return {
        "curl": _curl(function, call, gate),
        "Python": _python(function.name, call, gate),
        "TypeScript": _typescript(function.name, call, gate),
    }


def _curl(function: Function, call: ExampleCall, gate: str) -> str:
    address = shlex.quote(f"{gate}/gate/run/{function.name}")
    authorization = f'-H "Authorization: Bearer ${KEY}"'
    body = [f"--form-string {shlex.quote(f'{name}={_written(given)}')}" for name, given in call.texts.items()]
    body += [f"-F {name}=@{file}" for name, file in call.files.items()]
    if not call.files:
        body = ["-H 'Content-Type: application/json'", f"-d {shlex.quote(_json(call.texts))}"]
    if len(function.outputs) == 1:  # of which the bytes themselves can be asked for
        lines = [f"curl -sS --fail-with-body -OJ {address}", authorization, "-H 'Accept: application/octet-stream'"]
        return (
            " \\\n  ".join([*lines, "-H 'Prefer: wait=90'", *body])
            + f" ||\n  cat {function.name}  # why it was refused\n"
        )
    lines = [f"JOB=$(curl -sS --fail-with-body {address}", authorization, "-H 'Prefer: wait=90'", *body]
    return (
        " \\\n  ".join(lines)
        + """) || printf '%s\\n' "$JOB"  # why it was refused\n"""
        + """printf '%s' "$JOB" | grep -o '"url":"http[^"]*"' | cut -d '"' -f 4 | while read -r URL; do\n"""
        + f'  curl -sS --fail-with-body -OJ "$URL" {authorization}\n'
        + "done\n"
    )


def _python(name: str, call: ExampleCall, gate: str) -> str:
    if call.files:
        texts = {each: _written(given) for each, given in call.texts.items()}
        opened = ", ".join(f'"{each}": open("{file}", "rb")' for each, file in call.files.items())
        body = (f"        data={texts!r},\n" if texts else "") + f"        files={{{opened}}},"
    else:
        body = f"        json={dict(call.texts)!r},"
    return _PYTHON.format(gate=_json(gate), key=KEY, name=name, body=body)


def _typescript(name: str, call: ExampleCall, gate: str) -> str:
    wait = 'Prefer: "wait=90"'
    if not call.files:
        sent = '"Content-Type": "application/json"'
        body = f"    headers: {{ ...headers, {sent}, {wait} }},\n    body: JSON.stringify({_json(call.texts)}),"
        return _TYPESCRIPT.format(gate=_json(gate), key=KEY, name=name, body=body, before="", imports="writeFile")
    before = "const form = new FormData();\n"
    for each, given in call.texts.items():
        before += f'form.append("{each}", {_json(_written(given))});\n'
    for each, file in call.files.items():
        before += f'form.append("{each}", new Blob([await readFile("{file}")]), "{file}");\n'
    body = f"    headers: {{ ...headers, {wait} }},\n    body: form,"
    return _TYPESCRIPT.format(
        gate=_json(gate), key=KEY, name=name, body=body, before=f"{before}\n", imports="readFile, writeFile"
    )


def _written(given: Any) -> str:
    """As a field of a form has it."""
    return str(given).lower() if isinstance(given, bool) else str(given)


def _json(given: Any) -> str:
    return json.dumps(dict(given) if isinstance(given, Mapping) else given, ensure_ascii=False)
