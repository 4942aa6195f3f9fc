"""Schemathesis and openapi-spec-validator, installed from their registry: once, into test output."""

from __future__ import annotations

from pathlib import Path

from tests.clients.installed import python_folder

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def checker_programs() -> Path:
    """The folder of their programs."""
    return python_folder("schemathesis", REQUIREMENTS, "--only-binary=:all:", "--no-compile") / "bin"
