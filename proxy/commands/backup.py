"""`comfygate backup`: a copy of what the gate keeps, made while it runs."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import BaseModel

from proxy.commands.exits import fail
from proxy.config import Config, ConfigError, load_config
from proxy.persistence.chosen import place_of_postgres
from proxy.persistence.operations import SCHEMA
from proxy.persistence.sqlite_file import DAMAGED

_PRIVATE_FOLDER: Final = 0o700
_SQLITE: Final = b"SQLite format 3\0"
# A database's log and index belong to the running process; what they hold is in the copy.
_BESIDE_A_DATABASE: Final = ("-wal", "-shm", "-journal")


def backup(
    folder: Annotated[Path, typer.Argument(help="Where to; must not exist yet.")],
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = Path("config.toml"),
) -> None:
    """Copy the configuration file, the files that it names, and state_dir. The gate may run meanwhile."""
    try:
        loaded = load_config(config, {})
        folder.mkdir(mode=_PRIVATE_FOLDER, parents=True)
        shutil.copy2(config, folder / "config.toml")
        elsewhere = _copy_named(loaded, folder)
        _copy_state(loaded.resolve(loaded.server.state_dir), folder / "state")
    except FileExistsError:
        fail(f"{folder} is there already: name a new folder.")
    except (ConfigError, sqlite3.Error) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}. {folder} is not complete.")
    typer.echo(
        f"{folder} holds config.toml and state. Keep it as safe as the gate itself: it has the secret of all sessions."
    )
    for words in _not_copied(loaded):
        typer.echo(words, err=True)
    for file in elsewhere:
        typer.echo(f"Not in it, since it lies elsewhere: {file}", err=True)


def _not_copied(config: Config) -> Iterator[str]:
    place = place_of_postgres(config)
    if place is not None:
        yield (
            f"Not in it: the database at {place}, which holds jobs, GPU seconds and ended sessions. "
            f"Copy it with PostgreSQL's own tool: pg_dump --format=custom --schema={SCHEMA}"
        )


def _copy_named(config: Config, folder: Path) -> list[Path]:
    """Files that the configuration names go to the same place beside it. Returns those that lie outside of its folder."""
    elsewhere = []
    root = config.file.parent.resolve()
    pinned = [Path(workflow.file) for policy in config.policies.values() for workflow in policy.workflows]
    for file in sorted({config.resolve(path) for path in [*pinned, *_paths_in(config)]}):
        if not file.is_file() or file == config.file or file == config.log.audit_file:
            continue
        if not file.resolve().is_relative_to(root):
            elsewhere.append(file)
            continue
        target = folder / file.resolve().relative_to(root)
        target.parent.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        shutil.copy2(file, target)
    return elsewhere


def _paths_in(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _paths_in(getattr(value, name))
    elif isinstance(value, dict):
        for part in value.values():
            yield from _paths_in(part)
    elif isinstance(value, list | tuple | frozenset):
        for part in value:
            yield from _paths_in(part)


def _copy_state(state: Path, target: Path) -> None:
    target.mkdir(mode=_PRIVATE_FOLDER)
    for file in sorted(state.rglob("*")):
        if file.is_symlink() or not file.is_file() or file.name.endswith((*_BESIDE_A_DATABASE, ".lock")):
            continue
        copy = target / file.relative_to(state)
        copy.parent.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        with file.open("rb") as stream:
            is_database = stream.read(len(_SQLITE)) == _SQLITE
        if is_database and DAMAGED not in file.name:
            _copy_database(file, copy)
        else:
            shutil.copy2(file, copy)


def _copy_database(file: Path, copy: Path) -> None:
    """By SQLite's own backup: a plain copy lacks what the write-ahead log holds, and may be of two moments."""
    with (
        closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    os.chmod(copy, 0o600)
