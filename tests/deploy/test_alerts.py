"""What the alerts say in hours of a gate's life: each fires in the situation that it is for, and in no other one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deploy.files import DEPLOY
from tests.deploy.plainyaml import read_yaml
from tests.programs import needs

RULES: Final = DEPLOY / "prometheus" / "rules.yml"
TIMES: Final = ("1m", "5m", "16m", "1h", "3h", "6h")
LAST: Final = 360
DAY_S: Final = 86400
Series = dict[str, str]


def counter(per_minute: float, begins_at: int = 0) -> str:
    return ("_ " * begins_at) + f"0+{per_minute}x{LAST - begins_at}"


def flat(value: float, begins_at: int = 0) -> str:
    return ("_ " * begins_at) + f"{value}x{LAST - begins_at}"


def histogram(name: str, labels: str, per_minute: float, seconds: float, bounds: tuple[float, ...]) -> Series:
    """That many observations a minute, all of that length."""
    found = {}
    for bound in (*bounds, float("inf")):
        text = "+Inf" if bound == float("inf") else f"{bound:g}"
        inner = ",".join(part for part in (labels, f'le="{text}"') if part)
        found[f"{name}_bucket{{{inner}}}"] = counter(per_minute if seconds <= bound else 0)
    return found


def healthy(begins_at: int = 0) -> Series:
    """A gate that is up, with a good configuration, an open socket or two, and some calls; it may be new to Prometheus."""
    return {
        'up{job="comfygate"}': flat(1, begins_at),
        "comfygate_upstream_up": flat(1, begins_at),
        "comfygate_worker_stuck": flat(0, begins_at),
        "comfygate_limit_store_up": flat(1, begins_at),
        "comfygate_observer_last_sync_age_seconds": flat(3, begins_at),
        'comfygate_task_failures_total{task="expiry"}': flat(0, begins_at),
        "comfygate_config_last_reload_successful": flat(1, begins_at),
        'comfygate_config_reloads_total{result="bad"}': flat(0, begins_at),
        'comfygate_config_reloads_total{result="good"}': flat(0, begins_at),
        'comfygate_requests_total{route="GET /queue",method="GET",status="200",tenant="acme"}': counter(60, begins_at),
        'comfygate_jobs_ended_total{tenant="acme",outcome="completed"}': counter(2, begins_at),
        'process_open_fds{job="comfygate"}': flat(60, begins_at),
        'process_max_fds{job="comfygate"}': flat(65536, begins_at),
        **histogram("comfygate_gate_seconds", 'route="GET /queue"', 60, 0.004, (0.005, 0.5, 1, 90)),
        **histogram("comfygate_job_wait_seconds", 'tenant="acme"', 2, 20, (10, 30, 600, 3600)),
    }


def key_ending(days: float) -> Series:
    # Time in promtool's tests begins at 0.
    return {'comfygate_key_expiry_timestamp_seconds{key="7f3a9c21",tenant="acme"}': flat(days * DAY_S)}


PAGE, TICKET = {"severity": "page"}, {"severity": "ticket"}
KEY = {**TICKET, "key": "7f3a9c21", "tenant": "acme"}
ENDPOINT = {**TICKET, "tenant": "acme", "endpoint": "shop"}
SOCKETS = {
    **histogram("comfygate_websocket_seconds", "", 5, 7200, (1, 60, 3600, 14400)),
    'comfygate_requests_total{route="GET /ws",method="GET",status="101",tenant="acme"}': counter(5),
    "comfygate_websockets": flat(600),
}
COMFYUIS = {
    f'comfygate_comfyui_{name}{{comfyui="{comfyui}",instance="{gate}"}}': flat(value)
    for name, value in (("up", 1), ("stuck", 0), ("last_sync_age_seconds", 3))
    for comfyui in ("gpu-1", "gpu-2")
    for gate in ("a", "b")
}
SITUATIONS: dict[str, tuple[Series, dict[str, tuple[dict[str, str], tuple[str, ...]]]]] = {
    "a gate that runs": ({}, {}),
    "two gates before two ComfyUIs": (COMFYUIS, {}),
    "a gate that begins after five minutes": (healthy(begins_at=4), {}),
    "a busy gate with open sockets": (SOCKETS, {}),
    "an old mistake, long corrected": ({'comfygate_config_reloads_total{result="bad"}': flat(7)}, {}),
    "a mistake after an hour, corrected after three": (
        {
            "comfygate_config_last_reload_successful": "1x58 0x120 1x180",
            'comfygate_config_reloads_total{result="bad"}': "0x58 1x301",
        },
        {"ConfigurationRefused": (TICKET, ("1h", "2h"))},
    ),
    "a first mistake of a new gate": (
        healthy(begins_at=4) | {"comfygate_config_last_reload_successful": "_ _ _ _ 1 1 0x352"},
        {"ConfigurationRefused": (TICKET, ("16m", "1h", "2h", "3h", "6h"))},
    ),
    "a key that ends in 14 days and two hours": (
        key_ending(14 + 2 / 24),
        {"KeyExpiresSoon": (KEY, ("3h", "6h"))},
    ),
    "a key that ends after three hours and a half": (
        key_ending(3.5 / 24),
        {"KeyExpiresSoon": (KEY, ("1m", "5m", "16m", "1h", "2h", "3h"))},
    ),
    "a key that ends next year": (key_ending(365), {}),
    "a worker that is stuck from the second hour on": (
        {"comfygate_worker_stuck": "0x115 1x244"},
        {"ComfyUIWorkerStuck": (PAGE, ("2h", "3h", "6h"))},
    ),
    "ComfyUI away for two minutes": ({"comfygate_upstream_up": "1x57 0 0 1x300"}, {}),
    "ComfyUI away for an hour": (
        {"comfygate_upstream_up": "1x56 0x60 1x242"},
        {"ComfyUIDown": (PAGE, ("1h",))},
    ),
    "one ComfyUI of two that is away in the second hour, as both gates see it": (
        COMFYUIS
        | {
            'comfygate_comfyui_up{comfyui="gpu-2",instance="a"}': "1x100 0x259",
            'comfygate_comfyui_up{comfyui="gpu-2",instance="b"}': "1x102 0x257",
        },
        {"ComfyUIAway": (TICKET | {"comfyui": "gpu-2"}, ("2h", "3h", "6h"))},
    ),
    "one ComfyUI of two that is drained, and restarted": (
        COMFYUIS
        | {f'comfygate_comfyui_up{{comfyui="gpu-2",instance="{gate}"}}': "1x100 0x20 1x239" for gate in ("a", "b")}
        | {'comfygate_comfyui_drained{comfyui="gpu-2",instance="a"}': "0x90 1x50 0x219"},
        {},
    ),
    "one ComfyUI of two that one gate of two does not reach": (
        COMFYUIS | {'comfygate_comfyui_up{comfyui="gpu-2",instance="a"}': "1x100 0x259"},
        {},
    ),
    "one ComfyUI of two that runs nothing from the second hour on": (
        COMFYUIS | {'comfygate_comfyui_stuck{comfyui="gpu-2",instance="a"}': "0x100 1x259"},
        {"ComfyUIStuck": (PAGE | {"comfyui": "gpu-2"}, ("2h", "3h", "6h"))},
    ),
    "one ComfyUI of two that does not say what it has from the second hour on": (
        COMFYUIS
        | {
            f'comfygate_comfyui_last_sync_age_seconds{{comfyui="gpu-1",instance="{gate}"}}': "3x110 4+60x248"
            for gate in ("a", "b")
        },
        {"ComfyUIStuck": (PAGE | {"comfyui": "gpu-1"}, ("2h", "3h", "6h"))},
    ),
    "a gate that is slow itself": (
        histogram("comfygate_gate_seconds", 'route="GET /queue"', 60, 2, (0.005, 0.5, 1, 90)),
        {"GateSlow": (TICKET, ("16m", "1h", "2h", "3h", "6h"))},
    ),
    "one answer in ten is an error": (
        {'comfygate_requests_total{route="GET /queue",method="GET",status="502",tenant="acme"}': counter(7)},
        {"GateErrors": (PAGE, ("16m", "1h", "2h", "3h", "6h"))},
    ),
    "copies that wait while others are made": (
        {
            'comfygate_copies{tenant="acme",state="waiting"}': flat(3),
            'comfygate_copy_attempts_total{tenant="acme",result="copied"}': counter(1),
        },
        {},
    ),
    "copies that wait and none is made": (
        {
            'comfygate_copies{tenant="acme",state="waiting"}': flat(3),
            'comfygate_copy_attempts_total{tenant="acme",result="copied"}': flat(9),
        },
        {"CopiesFail": (TICKET | {"tenant": "acme"}, ("16m", "1h", "2h", "3h", "6h"))},
    ),
    "a copy that has failed": (
        {'comfygate_copies{tenant="acme",state="failed"}': flat(1)},
        {"CopiesFail": (TICKET | {"tenant": "acme"}, ("16m", "1h", "2h", "3h", "6h"))},
    ),
    "guesses": (
        {'comfygate_refusals_total{reason="key-unknown"}': counter(60)},
        {"LoginsFailing": (TICKET, ("16m", "1h", "2h", "3h", "6h"))},
    ),
    "a queue that cannot be read from the second hour on": (
        {"comfygate_observer_last_sync_age_seconds": "3x110 4+60x248"},
        {"QueueUnread": (PAGE, ("2h", "3h", "6h"))},
    ),
    "a background task that failed after 55 minutes": (
        {'comfygate_task_failures_total{task="expiry"}': "0x55 1x304"},
        {"BackgroundTaskFailed": ({**TICKET, "task": "expiry"}, ("1h",))},
    ),
    "a log that loses lines for an hour": (
        {'comfygate_log_lines_dropped_total{sink="audit"}': "0x110 1+5x40 206x207"},
        {"LogLinesDropped": ({**TICKET, "sink": "audit"}, ("2h",))},
    ),
    "an endpoint that takes nothing from the second hour on": (
        {
            'comfygate_webhook_endpoint_up{tenant="acme",endpoint="shop"}': "1x60 0x299",
            'comfygate_webhook_endpoint_switched_off{tenant="acme",endpoint="shop"}': flat(0),
        },
        {"WebhookFailing": (ENDPOINT, ("3h", "6h"))},
    ),
    "an endpoint of two gates, of which one delivers": (
        {
            'comfygate_webhook_endpoint_up{tenant="acme",endpoint="shop",instance="a"}': flat(0),
            'comfygate_webhook_endpoint_up{tenant="acme",endpoint="shop",instance="b"}': flat(1),
        },
        {},
    ),
    "an endpoint that wants no more after an hour and a half": (
        {
            'comfygate_webhook_endpoint_up{tenant="acme",endpoint="shop"}': "1x90 0x269",
            'comfygate_webhook_endpoint_switched_off{tenant="acme",endpoint="shop"}': "0x90 1x269",
        },
        {"WebhookSwitchedOff": (ENDPOINT, ("2h", "3h", "6h"))},
    ),
    "Redis away": (
        {"comfygate_limit_store_up": "1x100 0x259"},
        {"LimitStoreDown": (TICKET, ("2h", "3h", "6h"))},
    ),
}


def summary(alert: str, labels: Mapping[str, str]) -> str:
    rules = read_yaml(RULES)["groups"][0]["rules"]
    text = next(str(rule["annotations"]["summary"]) for rule in rules if rule["alert"] == alert)
    for name, value in labels.items():
        text = text.replace(f"{{{{ $labels.{name} }}}}", value)
    return text


def case_of(series: Series, fires: Mapping[str, tuple[dict[str, str], tuple[str, ...]]]) -> dict[str, Any]:
    """Every alert is asked for at every time: what is not expected must not fire."""
    asked = []
    for alert in (rule["alert"] for rule in read_yaml(RULES)["groups"][0]["rules"]):
        labels, times = fires.get(alert, ({}, ()))
        told = [{"exp_labels": labels, "exp_annotations": {"summary": summary(alert, labels)}}]
        for time in (*TIMES, "2h"):
            asked.append({"eval_time": time, "alertname": alert, "exp_alerts": told if time in times else []})
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in (healthy() | series).items()],
        "alert_rule_test": asked,
    }


@needs("promtool")
@pytest.mark.parametrize("name", SITUATIONS)
def test_the_right_alerts_fire_and_no_others(tmp_path: Path, name: str) -> None:
    cases = tmp_path / "cases.yml"
    tests = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case_of(*SITUATIONS[name])]}
    cases.write_text(json.dumps(tests), encoding="utf-8")  # JSON is YAML

    said = subprocess.run(
        ["promtool", "test", "rules", str(cases)], capture_output=True, text=True, timeout=240, check=False
    )

    assert said.returncode == 0, said.stdout + said.stderr


def test_every_situation_that_an_alert_is_for_is_tried() -> None:
    tried = {alert for _, fires in SITUATIONS.values() for alert in fires}
    elsewhere = {"GateDown", "JobsFailing", "QueueWaits", "FilesRunOut"}

    assert tried | elsewhere == {rule["alert"] for rule in read_yaml(RULES)["groups"][0]["rules"]}
