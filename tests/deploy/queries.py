"""The PromQL of the alert rules and of the dashboard, and what of it names a metric or a label."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from proxy.observability.metrics import Metrics
from tests.deploy.files import DEPLOY
from tests.deploy.plainyaml import read_yaml

RANGE: Final = re.compile(r"\$__(?:rate_interval|range)")
_STRING = re.compile(r'"[^"]*"')
_METRIC = re.compile(r"\b((?:comfygate|process|python)_[a-z_]+|up)\b(?:\{([^}]*)\})?")
_LABEL = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)")
_BY = re.compile(r"\bby \(([^)]*)\)")
_SAMPLES: Final = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
# What Prometheus itself adds to each scrape.
_TARGET_LABELS: Final = {"job", "instance"}


def panel_queries() -> Iterator[tuple[str, str]]:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]


def alert_queries() -> Iterator[tuple[str, str]]:
    rules: dict[str, Any] = read_yaml(DEPLOY / "prometheus" / "rules.yml")
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def known_samples() -> dict[str, set[str]]:
    """Labels by sample name, of every metric of a real registry."""
    metrics = Metrics()
    samples: dict[str, set[str]] = {"up": set()}
    for metric in metrics.described():
        for suffix in _SAMPLES[metric.kind]:
            samples[metric.name + suffix] = set(metric.labels) | ({"le"} if suffix == "_bucket" else set())
    for family in metrics.registry.collect():
        for sample in family.samples:
            samples.setdefault(sample.name, set(sample.labels))
    return samples


def names_in(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Sample names with the labels that they are selected by."""
    bare = _STRING.sub('""', RANGE.sub("5m", expression))
    for name, selector in _METRIC.findall(bare):
        yield name, set(_LABEL.findall(selector or "")) - _TARGET_LABELS


def grouping_labels(expression: str) -> set[str]:
    return {label.strip() for group in _BY.findall(expression) for label in group.split(",")}
