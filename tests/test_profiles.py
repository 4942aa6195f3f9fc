"""How properties are tried: without a deadline, the same examples in CI, others in `make fuzz`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHOW = "import tests.conftest; from hypothesis import settings; s = settings(); print(s.deadline, s.derandomize, s.print_blob)"


@pytest.mark.parametrize(("environment", "shown"), [({"CI": "true"}, "None True True"), ({}, "None False True")])
def test_the_profile_is_that_of_the_place(environment: dict[str, str], shown: str) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "CI"}
    command = [sys.executable, "-c", SHOW]
    run = subprocess.run(command, cwd=ROOT, env=plain | environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == shown
