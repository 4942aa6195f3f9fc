"""The generated pages are what the code says now, and the tool that makes them tells when they are not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from policy.table import ROUTES
from proxy.observability.metrics import Metrics
from tools.docs import ROOT, main, metrics_page, pages, routes_page


@pytest.mark.parametrize("file", pages(), ids=lambda file: file.name)
def test_page_is_up_to_date(file: Path) -> None:
    # When this fails, run `python -m tools.docs`.
    assert file.read_text(encoding="utf-8") == pages()[file]


def test_the_tool_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "config.toml", tmp_path)

    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 0
    (tmp_path / "docs" / "routes.md").write_text("old", encoding="utf-8")
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert "routes.md is not up to date" in capsys.readouterr().err


def test_every_route_has_a_line() -> None:
    page = routes_page()

    for route in ROUTES:
        assert f"| `{route.name}`" in page


def test_every_metric_has_a_line() -> None:
    page = metrics_page()

    for family in Metrics().registry.collect():
        if family.name.startswith("comfygate_"):
            assert f"| `{family.name}` | {family.type} |" in page
