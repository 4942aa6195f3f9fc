"""The clients that people use, installed from their registries as people install them: once, into test output."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "test-output" / "clients"
REQUIREMENTS = HERE / "requirements.txt"
NODE_FILES = (HERE / "node" / "package.json", HERE / "node" / "package-lock.json")
INSTALL_LIMIT_S = 300


def python_folder() -> Path:
    """A virtual environment with the Python clients."""

    def install(folder: Path) -> None:
        _run(sys.executable, "-m", "venv", str(folder))
        pip = str(folder / "bin" / "python")
        _run(pip, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS))

    return _once("python", install, (REQUIREMENTS,), sys.version)


def client_folder(*requirements: str) -> Path:
    """A virtual environment of one Python client: what two of them need does not always go together."""

    def install(folder: Path) -> None:
        _run(sys.executable, "-m", "venv", str(folder))
        pip = str(folder / "bin" / "python")
        # Wheels alone: nothing of a package runs while it is installed.
        options = ("--quiet", "--disable-pip-version-check", "--only-binary=:all:")
        _run(pip, "-m", "pip", "install", *options, *requirements)

    return _once(requirements[0].partition("==")[0], install, (), f"{sys.version} {requirements}")


def node_folder() -> Path:
    """A folder whose node_modules holds the Node clients."""

    def install(folder: Path) -> None:
        for file in NODE_FILES:
            shutil.copy(file, folder)
        _run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", cwd=folder)

    return _once("node", install, NODE_FILES, "")


def node_client_folder(name: str, version: str) -> Path:
    """A folder whose node_modules holds one Node client. Nothing of a package runs while it is installed."""

    def install(folder: Path) -> None:
        (folder / "package.json").write_text('{"private": true, "type": "module"}', encoding="utf-8")
        options = ("--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--loglevel=error")
        _run("npm", "install", *options, f"{name}@{version}", cwd=folder)

    return _once(name, install, (), version)


def _once(name: str, install: Callable[[Path], None], files: tuple[Path, ...], more: str) -> Path:
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files) + more.encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{digest}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f"{name}.lock", timeout=INSTALL_LIMIT_S):
        if not (folder / ".complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder)
            (folder / ".complete").touch()
    return folder


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"
