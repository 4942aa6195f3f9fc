"""`comfygate init`: a folder with a config.toml in it, every setting explained. What is there already stays as it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

import proxy
from proxy.auth.atomic_file import PRIVATE_MODE
from proxy.commands.exits import fail

_NAME: Final = "config.toml"
_PRIVATE_FOLDER: Final = 0o700
_WORDS: Final = """\
{file} is written: one tenant, acme, and a comment for every setting. What to do next{where}:

  comfygate keys create --tenant acme     make a key for it; its last line is the key
  comfygate check                         is everything as it should be?
  comfygate serve                         run the gate
"""


def init(
    folder: Annotated[Path, typer.Argument(help="Where it is written; made when it is not there.")] = Path("."),
) -> None:
    """Write config.toml, with every setting explained. A file that is there already is never overwritten."""
    file = folder / _NAME
    try:
        text = shipped_configuration().read_bytes()
        folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        _create(file, text)
    except FileExistsError as error:
        if file.exists() or file.is_symlink():
            fail(f"{file} is there already and stays as it is. Edit it, or name another folder.")
        fail(f"{error.filename} is not a folder. Name another one.")
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}.")
    where = "" if folder.resolve() == Path.cwd() else f", in {folder}"
    typer.echo(_WORDS.format(file=file, where=where))


def shipped_configuration() -> Path:
    """The config.toml that explains every setting: in the repository's root, and inside the package where that was installed from a wheel."""
    package = Path(proxy.__file__).parent
    installed = package / "shipped" / _NAME
    return installed if installed.exists() else package.parent / _NAME


def _create(file: Path, content: bytes) -> None:
    # O_EXCL: whoever made the file in the meantime keeps it, and no link is followed.
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), PRIVATE_MODE)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
