import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

folder = Path(sys.executable).parent
environment = {**os.environ, "COMFYUI_URL": os.environ["COMFY_URL"], "COMFY_BIN": str(folder / "comfy")}
server = subprocess.Popen(
    [str(folder / "comfy-mcp")], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)


def say(message):
    server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    server.stdin.flush()


def ask(number, method, params):
    say({"id": number, "method": method, "params": params})
    while (answer := json.loads(server.stdout.readline())).get("id") != number or "method" in answer:
        pass
    return answer["result"]


ask(
    0,
    "initialize",
    {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}},
)
say({"method": "notifications/initialized"})
path = str(Path("workflow.json").absolute())
answer = ask(1, "tools/call", {"name": "run_workflow", "arguments": {"workflow_path": path}})
server.terminate()
print(json.dumps(answer))
assert not answer.get("isError")
with urllib.request.urlopen(json.loads(answer["content"][0]["text"])["outputs"][0]) as picture:
    Path("result.png").write_bytes(picture.read())
