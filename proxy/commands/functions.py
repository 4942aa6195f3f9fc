"""`comfygate functions`: propose a function for a workflow, look at those that there are, call one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from policy.functions.function import Function, is_graph
from policy.functions.propose import propose
from policy.functions.schema import arguments_schema
from policy.functions.settings import check_name
from policy.workflow import is_ui_format
from proxy.commands.catalogue import ask_catalogue
from proxy.commands.connect import read_key
from proxy.commands.exits import fail
from proxy.commands.function_call import CallFailed, call_function
from proxy.config import Config, ConfigError, load_config
from proxy.config.functions import FOLDER, read_functions

app = typer.Typer(
    name="functions",
    help="Make, list, show and call functions: workflows with named arguments.",
    no_args_is_help=True,
    add_completion=False,
)
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the function.")]
_DEFAULT: Final = Path("config.toml")


@app.command()
def new(
    workflow: Annotated[Path, typer.Argument(metavar="WORKFLOW.json", help='Exported with "Export (API)".')],
    name: Annotated[str | None, typer.Option(help="Of the function; the file's name without one.")] = None,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Propose a function for a workflow: writes functions/NAME.toml and NAME.json beside the configuration file."""
    loaded = _load(config)
    graph = _read_graph(workflow)
    chosen = _check_name(name or workflow.stem.lower().replace(" ", "_"))
    folder = loaded.file.parent / FOLDER
    files = {
        folder / f"{chosen}.json": orjson.dumps(graph, option=orjson.OPT_INDENT_2),
        folder / f"{chosen}.toml": propose(
            chosen, graph, asyncio.run(ask_catalogue(loaded, "to propose a function"))
        ).encode(),
    }
    taken = [file for file in files if file.exists()]
    if taken:
        fail(f"{taken[0]} is there already: remove it, or choose another name with --name.")
    folder.mkdir(exist_ok=True)
    for file, content in files.items():
        with file.open("xb") as opened:
            opened.write(content)
    typer.echo(f"Wrote {folder / chosen}.toml and .json. Read the first one, then give the function to a tenant:")
    typer.echo(f'\n  [tenants.NAME]\n  functions = ["{chosen}"]\n')


@app.command("list")
def list_(config: ConfigFile = _DEFAULT) -> None:
    """List the functions, and who may call each."""
    loaded, functions = _functions(config)
    if not functions:
        typer.echo("There is no function: make one with `comfygate functions new WORKFLOW.json`.", err=True)
    for name, function in functions.items():
        tenants = [tenant for tenant, settings in loaded.tenants.items() if {name, "*"} & {*settings.functions}]
        typer.echo(f"{name}  {function.version}  {function.title}  ({', '.join(tenants) or 'no tenant'})")


@app.command()
def show(name: Name, config: ConfigFile = _DEFAULT) -> None:
    """Show what a function takes and gives, as JSON."""
    function = _function(config, name)
    shown: dict[str, Any] = {
        "name": function.name,
        "title": function.title,
        "description": function.settings.description,
        "version": function.version,
        "arguments": arguments_schema(function),
        "outputs": {
            name: output.model_dump(exclude_defaults=True) for name, output in function.settings.outputs.items()
        },
    }
    typer.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())


@app.command()
def run(
    name: Name,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="@FILE for a file.")] = None,
    url: Annotated[str, typer.Option(help="The gate's address.")] = "http://127.0.0.1:8190",
    key_file: Annotated[
        Path | None, typer.Option(help="The file with the key; else the environment variable COMFYGATE_KEY.")
    ] = None,
    folder: Annotated[Path, typer.Option("--output", "-o", help="Where the results are saved.")] = Path(),
) -> None:
    """Call a function of a running gate, show how far it is, and save what it makes."""
    try:
        saved = asyncio.run(call_function(url, read_key(key_file), name, arguments or [], folder))
    except CallFailed as error:
        fail(str(error))
    for file in saved:
        typer.echo(str(file))


def _load(config: Path) -> Config:
    try:
        return load_config(config)
    except ConfigError as error:
        fail(str(error))


def _functions(config: Path) -> tuple[Config, dict[str, Function]]:
    loaded = _load(config)
    functions, mistakes = read_functions(loaded.file.parent / FOLDER)
    if mistakes:
        fail("\n".join(f"{file}: {words}" for file, words in mistakes))
    return loaded, functions


def _function(config: Path, name: str) -> Function:
    _, functions = _functions(config)
    if name not in functions:
        fail(f"There is no {FOLDER}/{name}.toml beside {config}.")
    return functions[name]


def _check_name(name: str) -> str:
    try:
        return check_name(name)
    except ValueError as error:
        fail(f"{error}. Choose one with --name.")


def _read_graph(file: Path) -> dict[str, Any]:
    try:
        document = orjson.loads(file.read_bytes())
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror or error}")
    except orjson.JSONDecodeError as error:
        fail(f"{file} is not JSON: {error}")
    graph = document["prompt"] if isinstance(document, dict) and isinstance(document.get("prompt"), dict) else document
    if is_ui_format(graph):
        fail(f"{file} is in the web UI's save format: export it in the API format, Export (API).")
    if not is_graph(graph):
        fail(f"{file} is not a workflow in the API format: export one from the web UI, Export (API).")
    found: dict[str, Any] = graph
    return found
