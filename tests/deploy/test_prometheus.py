"""The alerts and the dashboard against Prometheus's own programs, where they are installed: promtool reads the rules, and a real server asks a real gate."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.deploy.files import DEPLOY, shipped
from tests.deploy.plainyaml import read_yaml
from tests.deploy.queries import RANGE, alert_queries, panel_queries
from tests.harness import Running
from tests.ports import free_port
from tests.programs import needs

WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "scraped"}},
}
# These need what one healthy gate does not show: uploads, logins, reloads, keys that end, jobs that fail, several ComfyUIs.
MAY_BE_EMPTY = (
    "comfygate_jobs_forgotten_total",
    "comfygate_uploads",
    "comfygate_fetches",
    "comfygate_logins",
    "comfygate_config_reloads",
    "comfygate_key_expiry_timestamp_seconds",
    "comfygate_jobs_failed",
    "comfygate_webhook",
    "comfygate_cop",
    "comfygate_comfyui_",
    "comfygate_conver",
    "comfygate_warmups",
)


def test_the_gate_is_scraped_where_it_listens() -> None:
    ops = shipped().ops
    host = read_yaml(DEPLOY / "prometheus" / "prometheus.yml")
    container = read_yaml(DEPLOY / "docker" / "prometheus.yml")

    assert host["scrape_configs"][0]["static_configs"] == [{"targets": [f"{ops.host}:{ops.port}"]}]
    assert container["scrape_configs"][0]["static_configs"] == [{"targets": [f"gate:{ops.port}"]}]
    # The alerts ask for the job by this name.
    assert {config["scrape_configs"][0]["job_name"] for config in (host, container)} == {"comfygate"}


def test_an_operators_own_file_stays() -> None:
    words = (DEPLOY / "prometheus" / "README.md").read_text(encoding="utf-8")
    host = read_yaml(DEPLOY / "prometheus" / "prometheus.yml")

    assert not re.search(r"(?m)^ *cp (?!-n)\S+ \S*/prometheus\.yml", words)
    for piece in ("  - job_name: comfygate\n", '      - targets: ["127.0.0.1:9190"]\n'):
        assert piece in words, "what is to be added is what prometheus.yml has"
    assert host["alerting"]["alertmanagers"] == [{"static_configs": [{"targets": ["127.0.0.1:9093"]}]}]


@needs("promtool")
def test_the_pieces_fit_into_another_prometheus(tmp_path: Path) -> None:
    words = (DEPLOY / "prometheus" / "README.md").read_text(encoding="utf-8")
    pieces = re.findall(r"```yaml\n(rule_files.*?)```", words, re.DOTALL)[0]
    shutil.copy(DEPLOY / "prometheus" / "rules.yml", tmp_path / "comfygate-rules.yml")
    (tmp_path / "prometheus.yml").write_text(f"global:\n  scrape_interval: 30s\n{pieces}", encoding="utf-8")

    said = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert (said.returncode, "20 rules found" in said.stdout) == (0, True), said.stdout + said.stderr


def test_every_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    words = (DEPLOY.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    rules = read_yaml(DEPLOY / "prometheus" / "rules.yml")["groups"][0]["rules"]

    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
        assert f"| `{rule['alert']}` |" in words


@needs("promtool")
@pytest.mark.parametrize("arguments", [("rules", "rules.yml"), ("config", "prometheus.yml")])
def test_promtool_accepts(arguments: tuple[str, str]) -> None:
    kind, file = arguments
    said = subprocess.run(
        ["promtool", "check", kind, str(DEPLOY / "prometheus" / file)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert said.returncode == 0, said.stdout + said.stderr
    assert "SUCCESS" in said.stdout


@needs("promtool")
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yml"
    cases.write_text(json.dumps(_alert_cases()), encoding="utf-8")  # JSON is YAML

    said = subprocess.run(
        ["promtool", "test", "rules", str(cases)], capture_output=True, text=True, timeout=240, check=False
    )

    assert said.returncode == 0, said.stdout + said.stderr


def _summary(alert: str, labels: dict[str, str]) -> str:
    """What the alert says, with its labels put in."""
    rules = read_yaml(DEPLOY / "prometheus" / "rules.yml")["groups"][0]["rules"]
    text = next(str(rule["annotations"]["summary"]) for rule in rules if rule["alert"] == alert)
    for name, value in labels.items():
        text = text.replace(f"{{{{ $labels.{name} }}}}", value)
    return text


def _alert_cases() -> dict[str, Any]:
    def case(series: dict[str, str], at: str, alert: str, *fires: dict[str, str]) -> dict[str, Any]:
        expected = [{"exp_labels": labels, "exp_annotations": {"summary": _summary(alert, labels)}} for labels in fires]
        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": expected}],
        }

    page, ticket = {"severity": "page"}, {"severity": "ticket"}
    age = "comfygate_observer_last_sync_age_seconds"
    task = 'comfygate_task_failures_total{task="observer"}'
    failed = 'comfygate_jobs_ended_total{tenant="acme",outcome="failed"}'
    done = 'comfygate_jobs_ended_total{tenant="acme",outcome="completed"}'
    tests = [
        case({"comfygate_upstream_up": "1 0 0 0 0"}, "2m", "ComfyUIDown"),
        case({"comfygate_upstream_up": "1 0 0 0 0"}, "4m", "ComfyUIDown", page),
        case({"comfygate_worker_stuck": "0 1 1 1"}, "3m", "ComfyUIWorkerStuck", page),
        case({age: "10 200 200 200", "comfygate_upstream_up": "1x3"}, "3m", "QueueUnread", page),
        case({age: "10 200 200 200", "comfygate_upstream_up": "0x3"}, "3m", "QueueUnread"),
        case({task: "0 0 1 1"}, "3m", "BackgroundTaskFailed", ticket | {"task": "observer"}),
        case({failed: "0+1x40", done: "0x40"}, "40m", "JobsFailing", ticket | {"tenant": "acme"}),
        case({failed: "0+1x40", done: "0+9x40"}, "40m", "JobsFailing"),
    ]
    return {"rule_files": [str(DEPLOY / "prometheus" / "rules.yml")], "evaluation_interval": "1m", "tests": tests}


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[str]:
    config = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    file = folder / "prometheus.yml"
    file.write_text(config.replace("127.0.0.1:9190", target).replace("15s", "1s"), encoding="utf-8")
    shutil.copy(DEPLOY / "prometheus" / "rules.yml", folder / "rules.yml")
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def ask(session: aiohttp.ClientSession, server: str, expression: str) -> Any:
    async with session.get(f"{server}/api/v1/query", params={"query": expression}) as response:
        answer = await response.json()
    assert answer["status"] == "success", answer
    return answer["data"]["result"]


async def _make_traffic(gate: Running) -> None:
    async with gate.session.ws_connect(gate.address("/ws?clientId=scrape"), headers=gate.headers("alice")):
        for _ in range(3):
            await gate.json("POST", "/prompt", "alice", json={"prompt": WORKFLOW, "client_id": "scrape"})
            assert await gate.status("GET", "/queue", None) == 401
            assert await gate.status("GET", "/history", "mallory") == 200


@needs("prometheus")
async def test_a_real_prometheus_answers_every_query(gate: Running, tmp_path: Path) -> None:
    target = gate.ops_url.removeprefix("http://")
    async with prometheus(tmp_path, target) as server, aiohttp.ClientSession() as session:
        assert await gate.status("GET", "/queue", None, headers={"X-API-Key": "wrong"}) == 401
        async with asyncio.timeout(240):
            while True:  # a rate needs two scrapes with traffic between them
                await _make_traffic(gate)
                with contextlib.suppress(aiohttp.ClientError):
                    seen = await ask(
                        session, server, 'sum(rate(comfygate_jobs_ended_total{outcome="completed"}[1m])) > 0'
                    )
                    scrapes = await ask(session, server, 'count_over_time(up{job="comfygate"}[1m]) > 3')
                    if seen and scrapes:
                        break
                await asyncio.sleep(0.2)
        for name, expression in panel_queries():
            asked = RANGE.sub("1m", expression).replace("$tenant", ".*")
            found = await ask(session, server, asked)
            assert found or any(metric in asked for metric in MAY_BE_EMPTY), f"{name}: {asked}"
        for _, expression in alert_queries():
            await ask(session, server, expression)
        async with session.get(f"{server}/api/v1/rules") as response:
            groups = (await response.json())["data"]["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
