"""`comfygate serve`: runs the gate until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.commands.serving import run_gate


def serve(
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = Path("config.toml"),
) -> None:
    """Run the gate."""
    run_gate(config)
