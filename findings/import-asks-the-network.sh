#!/usr/bin/env bash
# finding: importing this library asks a server for its configuration and writes the answer into the home folder, before anything of it is called
# about: comfygrid-sig
# guess: import defines functions; what needs the network is asked for when a signature is
# concerns: services, tests and builds that import it wait for a host in the network, and read-only or shared home folders get a file; with a running event loop the import does none of this
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfygrid-sig==0.2.7 aiohttp==3.14.5

mkdir "$folder/home"
"$python" - "$folder/home" <<'PROGRAM'
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

home = Path(sys.argv[1])
asked: list[str] = []


class Server(BaseHTTPRequestHandler):
    """Stands for the host that the library asks by default; its configuration is empty."""

    def do_GET(self) -> None:
        asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *parts: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
environment = {
    **os.environ,
    "HOME": str(home),
    "COMFYAGENT_NODE_REGISTER_CONFIG_URL": f"{url}/nodes.json",
    "MODELSCOPE_MODELS_CONFIG_URL": f"{url}/models.yaml",
    "BIZYAIR_MODEL_FILE_URL": f"{url}/files",
}


def import_it() -> tuple[list[str], list[str]]:
    """What was asked, and what lies in the home folder, after `import comfygrid_sig` and nothing else."""
    asked.clear()
    subprocess.run([sys.executable, "-c", "import comfygrid_sig"], env=environment, capture_output=True, timeout=120, check=True)
    return list(asked), sorted(str(path.relative_to(home)) for path in home.rglob("*.json"))


first, second = import_it(), import_it()
print("comfygrid-sig", version("comfygrid-sig"))
print("guess: ([], [])")
print(f"seen:  {first} at the first import, {second} at the second")
assert first == (["/nodes.json"], [".cache/comfygrid_sig/comfyagent_node_config.json"])
assert second == ([], first[1])
PROGRAM
