"""Where the files of deploy/ lie, and what the shipped configuration says."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from proxy.config import Config, load_config

ROOT: Final = Path(__file__).resolve().parent.parent.parent
DEPLOY: Final = ROOT / "deploy"


def shipped() -> Config:
    return load_config(ROOT / "config.toml", {})
