"""The clients that people use, installed from their registries as people install them: once, into test output."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "test-output" / "clients"
REQUIREMENTS = HERE / "requirements.txt"
NODE_FILES = (HERE / "node" / "package.json", HERE / "node" / "package-lock.json")
INSTALL_LIMIT_S = 300
NODE_VERSION = "22.23.3"
_NODE_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}


def python_folder(name: str = "python", requirements: Path = REQUIREMENTS, *options: str) -> Path:
    """A virtual environment with what a file of requirements names. options: of `pip install`."""

    def install(folder: Path) -> None:
        _install_python(folder, *options, "-r", str(requirements))

    return _once(name, install, (requirements,), f"{sys.version} {options}" if options else sys.version)


def client_folder(*requirements: str, limit_s: float = INSTALL_LIMIT_S) -> Path:
    """A virtual environment of one Python client: what two of them need does not always go together. limit_s: for its installation."""

    def install(folder: Path) -> None:
        # Wheels alone: nothing of a package runs while it is installed. Of most of them little is ever imported, and compiled then.
        _install_python(folder, "--only-binary=:all:", "--no-compile", *requirements, limit_s=limit_s)

    return _once(requirements[0].partition("==")[0], install, (), f"{sys.version} {requirements}", limit_s)


def node_folder(name: str = "node", files: tuple[Path, ...] = NODE_FILES) -> Path:
    """A folder whose node_modules holds what package.json and package-lock.json name. Nothing of a package runs while it is installed."""

    def install(folder: Path) -> None:
        for file in files:
            shutil.copy(file, folder)
        _run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", cwd=folder)

    return _once(name, install, files, "")


def node_client_folder(
    name: str, version: str, overrides: Mapping[str, str] | None = None, limit_s: float = INSTALL_LIMIT_S
) -> Path:
    """A folder whose node_modules holds one Node client. Nothing of a package runs while it is installed.

    overrides: versions of what it needs, in the places of those that it names itself. limit_s: for its installation.
    """

    def install(folder: Path) -> None:
        manifest = {"private": True, "type": "module", "overrides": dict(overrides or {})}
        (folder / "package.json").write_text(json.dumps(manifest), encoding="utf-8")
        options = ("--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--loglevel=error")
        _run("npm", "install", *options, f"{name}@{version}", cwd=folder, limit_s=limit_s)

    return _once(name, install, (), f"{version}{overrides or ''}", limit_s)


def node_program(oldest: int) -> str:
    """Node of this major version at least: the system's, or what the package `node` of the npm registry would install for this machine."""
    found = shutil.which("node")
    if found is not None and _major_version(found) >= oldest:
        return found
    kind = f"{sys.platform}-{_NODE_MACHINES.get(platform.machine(), platform.machine())}"
    installed = node_client_folder(f"node-{kind}", NODE_VERSION)
    return str(installed / "node_modules" / f"node-{kind}" / "bin" / "node")


def _major_version(node: str) -> int:
    said = subprocess.run((node, "--version"), capture_output=True, text=True, check=True).stdout
    return int(said.removeprefix("v").partition(".")[0])


def _once(
    name: str,
    install: Callable[[Path], None],
    files: tuple[Path, ...],
    more: str,
    limit_s: float = INSTALL_LIMIT_S,
) -> Path:
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files) + more.encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{digest}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f"{name}.lock", timeout=limit_s):
        if not (folder / ".complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder)
            (folder / ".complete").touch()
    return folder


def _install_python(folder: Path, *arguments: str, limit_s: float = INSTALL_LIMIT_S) -> None:
    """By this environment's pip: to unpack another into each takes longer than most clients. arguments: of `pip install`."""
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    pip = (sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"))
    _run(*pip, "install", "--quiet", "--disable-pip-version-check", *arguments, limit_s=limit_s)


def _run(*command: str, cwd: Path | None = None, limit_s: float = INSTALL_LIMIT_S) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=limit_s, check=False)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"
