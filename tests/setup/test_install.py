"""Set-up installs what the locks say and looks at nothing else, with old and new installers, in empty folders.

The index of these tests also offers a newer release of everything, as the real one will some day.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.setup.index import NEWER, Index, serving

ROOT = Path(__file__).parents[2]
OLDEST_PIP = ROOT / "tests" / "setup" / "oldest-pip.txt"
RUNTIME = ROOT / "requirements.lock"
EVERYTHING = ROOT / "requirements-dev.lock"
LOCKS = [RUNTIME, EVERYTHING]
NOT_COMPILED = {"PIP_NO_COMPILE": "0"}
"""Compiling takes longer than the rest, and one of them shows that it is done. pip takes "0" for yes where an option begins with "no"."""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """With every file that the locks name for this machine, from wherever its pip is set up to find packages."""
    files = tmp_path_factory.mktemp("files")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-d", str(files)]
    subprocess.run([*download, "-r", str(EVERYTHING)], check=True)
    subprocess.run([*download, "-r", str(OLDEST_PIP)], check=True)
    with serving(files) as index:
        yield index


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What of a clone takes part in an installation."""
    for name in ("Makefile", "pyproject.toml", "README.md", "LICENSE", "config.toml", RUNTIME.name, EVERYTHING.name):
        shutil.copy(ROOT / name, tmp_path)
    for package in ("proxy", "policy", "standin"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def surroundings(index: Index, checkout: Path, *, uv: bool = False) -> dict[str, str]:
    """The environment of a machine that knows this index alone, with uv or without."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "VIRTUAL_ENV"))}
    tools = checkout / "tools"
    tools.mkdir(exist_ok=True)
    if uv and not (tools / "uv").exists():
        (tools / "uv").symlink_to(Path(sys.executable).parent / "uv")
    here = [part for part in os.environ["PATH"].split(os.pathsep) if not (Path(part) / "uv").exists()]
    return kept | {
        "PATH": os.pathsep.join([str(tools), *here]),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index.url,
        "PIP_NO_CACHE_DIR": "1",
        "UV_CACHE_DIR": str(checkout / "cache"),
        "UV_DEFAULT_INDEX": index.url,
        "UV_NO_CONFIG": "1",
    }


def run(checkout: Path, environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make(checkout: Path, environment: dict[str, str], target: str) -> None:
    run(checkout, environment, "make", target, f"PYTHON={sys.executable}")


def installed(checkout: Path, environment: dict[str, str]) -> dict[str, str]:
    """Versions by name, as the installed environment says itself."""
    code = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    lines = run(checkout, environment, ".venv/bin/python", "-c", code).splitlines()
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (line.split() for line in lines)}


def locked(lock: Path) -> dict[str, set[str]]:
    """Versions by name; several where one depends on the Python."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), set()).add(version)
    return found


def uncompiled(checkout: Path, environment: dict[str, str]) -> str:
    """Modules of the gate that its first start must compile."""
    code = "import os, sys, proxy.app; print(*[m.__name__ for m in list(sys.modules.values()) if not os.path.exists(getattr(m, '__cached__', None) or '.')])"
    return run(checkout, environment | {"PYTHONDONTWRITEBYTECODE": "1"}, ".venv/bin/python", "-c", code).strip()


def assert_as_locked(
    checkout: Path, environment: dict[str, str], lock: Path, index: Index, *, is_compiled: bool = True
) -> None:
    there = installed(checkout, environment)
    ours = {name: version for name, version in there.items() if name not in {"comfygate", "pip", "setuptools"}}
    expected = locked(lock)
    assert set(ours) <= set(expected)
    assert all(version in expected[name] for name, version in ours.items())
    assert {"aiohttp", "pydantic", "pillow"} <= set(ours)
    assert there["comfygate"]
    assert not [name for name in index.taken if NEWER in name]
    assert not is_compiled or uncompiled(checkout, environment) == ""
    assert "demo" in run(checkout, environment, ".venv/bin/comfygate", "--help")


def test_with_the_oldest_pip(checkout: Path, index: Index) -> None:
    environment = surroundings(index, checkout)
    run(checkout, environment, sys.executable, "-m", "venv", ".venv")
    run(
        checkout,
        environment,
        ".venv/bin/python",
        "-m",
        "pip",
        "install",
        "-q",
        "--require-hashes",
        "-r",
        str(OLDEST_PIP),
    )
    make(checkout, environment, "install")
    assert installed(checkout, environment)["pip"] == "22.3"
    assert_as_locked(checkout, environment, RUNTIME, index)
    # What the gate runs on is compiled by now, and nothing else is started.
    make(checkout, environment | NOT_COMPILED, ".venv/.ready")
    assert_as_locked(checkout, environment, EVERYTHING, index)
    assert "pytest" in installed(checkout, environment)


def test_with_the_newest_pip_and_no_test_tools(checkout: Path, index: Index) -> None:
    environment = surroundings(index, checkout)
    run(checkout, environment, sys.executable, "-m", "venv", ".venv")
    newest = max(locked(EVERYTHING)["pip"])
    run(checkout, environment, ".venv/bin/python", "-m", "pip", "install", "-q", f"pip=={newest}")
    make(checkout, environment | NOT_COMPILED, "install")
    assert_as_locked(checkout, environment, RUNTIME, index, is_compiled=False)
    assert not {"pytest", "mypy", "ruff", "playwright", "hypothesis"} & set(installed(checkout, environment))


def test_with_uv_and_then_without(checkout: Path, index: Index) -> None:
    environment = surroundings(index, checkout, uv=True)
    make(checkout, environment, "install")
    assert "pip" not in installed(checkout, environment), "uv made it"
    assert_as_locked(checkout, environment, RUNTIME, index)
    (checkout / ".venv" / ".runtime").unlink()
    (checkout / "tools" / "uv").unlink()
    make(checkout, environment, "install")
    assert_as_locked(checkout, environment, RUNTIME, index)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_extras_and_no_host_and_has_a_hash_for_each(lock: Path) -> None:
    """A name with an extra makes pip 23 look at newer releases of that package, and then ask for their hashes."""
    text = lock.read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    assert len(blocks) >= 40
    assert not [block for block in blocks if "[" in block.split("==")[0] or "--hash=sha256:" not in block]
    assert "://" not in text


def test_both_locks_agree() -> None:
    everything = locked(EVERYTHING)
    assert all(versions <= everything[name] for name, versions in locked(RUNTIME).items())
