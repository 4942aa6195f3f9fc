"""Every query of the alerts and of the dashboard asks for metrics and labels that the gate really has."""

from __future__ import annotations

import json
import re

import pytest

from proxy.observability.metrics import Metrics
from tests.deploy.files import DEPLOY
from tests.deploy.queries import alert_queries, grouping_labels, known_samples, names_in, panel_queries
from tests.docs.refusals import reasons_in_code

QUERIES = [*panel_queries(), *alert_queries()]
SAMPLES = known_samples()


def test_there_are_queries() -> None:
    assert len(list(panel_queries())) >= 20
    assert len(list(alert_queries())) >= 10


@pytest.mark.parametrize("expression", [pytest.param(expression, id=name) for name, expression in QUERIES])
def test_names_metrics_and_labels_that_exist(expression: str) -> None:
    found = list(names_in(expression))

    assert found, "a query that asks for nothing of the gate's"
    for name, labels in found:
        assert name in SAMPLES, name
        assert labels <= SAMPLES[name], (name, labels)
    known = set().union(*(SAMPLES[name] for name, _ in found))
    assert grouping_labels(expression) <= known


def test_every_metric_is_looked_at() -> None:
    asked = {name for _, expression in QUERIES for name, _ in names_in(expression)}
    families = {family.name for family in Metrics().registry.collect() if family.name.startswith("comfygate_")}

    unseen = {name for name in families if not any(sample.startswith(name) for sample in asked)}

    assert unseen <= {"comfygate_websocket_bytes_sent", "comfygate_key_expiry_days"}


def test_reasons_in_queries_are_answered_by_the_gate() -> None:
    patterns = [pattern for _, expression in QUERIES for pattern in re.findall(r'reason=~"([^"]*)"', expression)]

    assert patterns
    for pattern in patterns:
        for part in pattern.split("|"):
            assert any(re.fullmatch(part, reason) for reason in reasons_in_code()), part


def test_the_dashboard_is_complete() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    panels = dashboard["panels"]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert dashboard["uid"] == "comfygate"
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"datasource", "tenant"}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
