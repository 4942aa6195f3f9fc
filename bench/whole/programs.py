"""The subjects of the measurement, each a process of its own, and what it has used."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import orjson
import psutil

from bench.processes import cpu_s_of, program
from bench.whole.naive import KEY
from proxy.auth import key_file
from tests.ports import free_port

TENANT: Final = "bench"
ALLOWED: Final = ("CLIPText*", "VAE*", "@core-image")
_ROOT: Final = Path(__file__).resolve().parents[2]
_CONFIG: Final = """\
[server]
port = 0
max_upload_bytes = "4GiB"
max_connections = 20000
state_dir = "{state}"
[ops]
port = 0
[upstream]
url = "{upstream}"
[log]
format = "json"
[tenants.bench]
functions = {functions}
[policies.default]
allow = {allow}
deny = ["*Upload*"]
max_nodes = 1000
[policies.default.inputs]
"KSampler.steps" = {{ max = 50 }}
"*.batch_size" = {{ max = 4 }}
"CheckpointLoaderSimple.ckpt_name" = {{ allow = ["sd_xl*"] }}
[policies.default.budgets]
pixels = {{ of = "width*height*batch_size?", max = 4194304 }}
[limits.default]
requests = "1000000/second"
prompts = "1000000/second"
uploads = "1000000/second"
polls = "1000000/second"
web_ui_files = "1000000/second"
queued_jobs = 1000000
websockets = 20000
"""
_NGINX: Final = """\
worker_processes 1;
daemon off;
master_process off;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 4g;
    keepalive_requests 1000000;
    map $http_authorization $is_known {{ "Bearer {key}" 1; default 0; }}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream comfyui {{ server {upstream}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        if ($is_known = 0) {{ return 401; }}
        location / {{
            proxy_pass http://comfyui;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Authorization "";
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Subject:
    """started_s: on the clock, from the start of the process until it listened."""

    name: str
    url: str
    pid: int
    key: str = ""
    started_s: float = 0.0

    @property
    def host(self) -> str:
        return str(urlsplit(self.url).hostname)

    @property
    def port(self) -> int:
        return int(urlsplit(self.url).port or 0)

    @property
    def cpu_s(self) -> float:
        return cpu_s_of(self.pid)

    @property
    def ended_helpers_cpu_s(self) -> float:
        """Of processes that it had started, and that have ended."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.children_user + times.children_system)

    @property
    def memory_kib(self) -> float:
        return float(psutil.Process(self.pid).memory_info().rss) / 1024

    def sent_client_id(self, client_id: str) -> str:
        """As the upstream knows it."""
        return f"{TENANT}.{client_id}" if self.name.startswith("gate") else client_id


@contextmanager
def stub(
    object_info: Path,
    *,
    web: Path | None = None,
    waiting: int = 0,
    ended: int = 0,
    is_silent: bool = False,
    runs: bool = False,
) -> Iterator[Subject]:
    """The upstream. waiting, ended: jobs of the tenant that it has from the start. is_silent: it tells nobody of new ones. runs: they come to their end."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.json"
        owner = f"{TENANT}.other"
        told = {"object_info": str(object_info), "web": str(web or ""), "waiting": waiting, "ended": ended}
        told |= {"is_silent": is_silent, "runs": runs}
        state.write_bytes(orjson.dumps({**told, "owner": owner}))
        with program("-m", "bench.whole.stub", str(state)) as started:
            yield Subject("stub", started.url, started.process.pid)


@contextmanager
def gate(
    upstream: str,
    name: str = "gate",
    profile: Path | None = None,
    allow: Sequence[str] = ALLOWED,
    watched_by: str = "profiled",
    state: Path = Path("state"),
    functions: Mapping[str, bytes] = MappingProxyType({}),
) -> Iterator[Subject]:
    """With every check, limit, log line and metric of a shipped configuration.

    profile: a file for what `watched_by`, a module beside this one, sees of it. state: its `state_dir`. functions: files, by name.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.toml"
        own = sorted(name.removesuffix(".toml") for name in functions if name.endswith(".toml"))
        text = _CONFIG.format(upstream=upstream, allow=list(allow), state=state, functions=own)
        config.write_text(text, encoding="utf-8")
        for file, content in functions.items():
            (Path(folder) / "functions").mkdir(exist_ok=True)
            (Path(folder) / "functions" / file).write_bytes(content)
        key = key_file.create_key(config, tenant=TENANT).text
        plain = ("-c", "from proxy.commands.main import main; main()")
        command = plain if profile is None else ("-m", f"bench.whole.{watched_by}", str(profile))
        began_s = time.perf_counter()
        with program(*command, "serve", "--config", str(config), speaks_on_stderr=True) as started:
            yield Subject(name, started.url, started.process.pid, key, time.perf_counter() - began_s)


@contextmanager
def naive(upstream: str) -> Iterator[Subject]:
    began_s = time.perf_counter()
    with program("-m", "bench.whole.naive", upstream) as started:
        yield Subject("naive", started.url, started.process.pid, KEY, time.perf_counter() - began_s)


@contextmanager
def nginx(upstream: str) -> Iterator[Subject]:
    """Where it is installed: see has_nginx()."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        address = upstream.removeprefix("http://")
        config.write_text(_NGINX.format(folder=folder, key=KEY, upstream=address, port=port), encoding="utf-8")
        began_s = time.perf_counter()
        process = subprocess.Popen(["nginx", "-e", f"{folder}/error.log", "-p", folder, "-c", str(config)])
        try:
            wait_for_port(port, process)
            yield Subject("nginx", f"http://127.0.0.1:{port}", process.pid, KEY, time.perf_counter() - began_s)
        finally:
            process.kill()
            process.wait()


def has_nginx() -> bool:
    return shutil.which("nginx") is not None


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise RuntimeError("nginx ended without listening")


@contextmanager
def subjects(upstream: str, *, profile: Path | None = None, allow: Sequence[str] = ALLOWED) -> Iterator[list[Subject]]:
    """The gate, the naive proxy, and nginx where there is one."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(gate(upstream, profile=profile, allow=allow)),
            stack.enter_context(naive(upstream)),
        ]
        if has_nginx():
            started.append(stack.enter_context(nginx(upstream)))
        yield started


def load_average() -> float:
    return os.getloadavg()[0]
