"""What holds the house together: the direction of imports, purity of policy/, file sizes, the table's rows, links in the docs.

One test for each rule, which names every file that breaks it: a test for each file would be an eighth of all tests.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Plumbing that would make a decision depend on more than its arguments.
IMPURE = {"aiohttp", "asyncio", "io", "os", "pathlib", "random", "secrets", "shutil", "socket", "subprocess", "time"}
MAX_LINES = 400
MAX_FUNCTION_LINES = 40
MAX_METHODS = 15
"""Of one class, private ones too: beyond it a class answers more than one question. Those that Python itself calls do not count."""


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imports_of(file: Path) -> set[str]:
    """Modules imported when the file is loaded: not under TYPE_CHECKING and not in functions."""
    found: set[str] = set()
    waiting: list[ast.stmt] = list(tree_of(file).body)
    while waiting:
        statement = waiting.pop()
        match statement:
            case ast.Import():
                found |= {name.name for name in statement.names}
            case ast.ImportFrom(module=str(module)):
                found |= {module} | {f"{module}.{name.name}" for name in statement.names}
            case ast.If() if "TYPE_CHECKING" not in ast.unparse(statement.test):
                waiting += statement.body + statement.orelse
            case ast.Try() | ast.ClassDef() | ast.With():
                waiting += statement.body
    return found


@cache
def import_graph() -> dict[str, set[str]]:
    return {module_of(file): imports_of(file) for file in sources("policy", "proxy")}


# The rooms of proxy/, each with what it answers in CONTRIBUTING.md: one imports only what stands above it.
LAYERS = (
    "config",
    "memory",
    "tasks",
    "open_files",
    "processes",
    "persistence",
    "http",
    "limits",
    "upstream",
    "outside",
    "auth",
    "jobs",
    "websocket",
    "observability",
    "running_requests",
    "files",
    "v2",
    "conversion",
    "copies",
    "webhooks",
    "compiled_config",
    "pages",
    "dependencies",
    "steps",
    "pipeline",
    "wiring",
    "systemd",
    "config_watcher",
    "app",
    "commands",
)
MAX_FILES_AT_THE_DOOR = 12


def layers_of(file: Path) -> set[str]:
    """Parts of proxy/ that a file imports anywhere, in functions too."""
    found: set[str] = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "proxy":
            found |= {f"proxy.{name.name}" for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.split(".")[1] for name in found if name.startswith("proxy.")}


def test_every_part_of_proxy_has_its_layer() -> None:
    parts = {
        path.stem for path in (ROOT / "proxy").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert parts - {"__init__", "__main__"} == set(LAYERS)
    assert len(list((ROOT / "proxy").glob("*.py"))) <= MAX_FILES_AT_THE_DOOR


def layers_below(file: Path) -> set[str]:
    """What a file of proxy/ imports though it stands below."""
    own = file.relative_to(ROOT / "proxy").parts[0].removesuffix(".py")
    return set() if own in ("__init__", "__main__") else layers_of(file) - set(LAYERS[: LAYERS.index(own) + 1])


def test_a_layer_imports_only_what_stands_above_it() -> None:
    wrong = {name_of(file): below for file in sources("proxy") if (below := layers_below(file))}
    assert not wrong


def test_the_stand_in_and_the_tools_are_no_part_of_the_gate() -> None:
    """The demo alone starts the stand-in."""
    wrong = {
        module
        for module, names in import_graph().items()
        if any(name.split(".")[0] in ("standin", "tools", "tests") for name in names)
    }
    assert wrong <= {"proxy.commands.demo"}


def test_policy_never_imports_proxy() -> None:
    wrong = {
        (module, name)
        for module, names in import_graph().items()
        if module.split(".")[0] == "policy"
        for name in names
        if name.split(".")[0] == "proxy"
    }
    assert not wrong


def test_policy_is_pure() -> None:
    wrong = {
        (module, name)
        for module, names in import_graph().items()
        if module.split(".")[0] == "policy"
        for name in names
        if name.split(".")[0] in IMPURE
    }
    assert not wrong
    for file in sources("policy"):
        assert not any(isinstance(node, ast.Await | ast.AsyncFunctionDef) for node in ast.walk(tree_of(file))), file


def test_imports_have_no_cycle() -> None:
    known = import_graph()
    graph = {module: {name for name in names if name in known and name != module} for module, names in known.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module in done:
            return
        for name in graph[module]:
            # A package's __init__ that re-exports its parts is imported with each of them: that is no cycle of decisions.
            if not module.startswith(f"{name}."):
                visit(name, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_nothing_imports_the_composition_root() -> None:
    allowed = ("proxy.commands", "proxy.commands.main", "proxy.__main__", "proxy.app")
    wrong = {
        module for module, names in import_graph().items() if "proxy.app" in names and not module.startswith(allowed)
    }
    assert not wrong


def test_files_are_short() -> None:
    counts = {
        name_of(file): len(file.read_text(encoding="utf-8").splitlines())
        for file in sources("policy", "proxy", "standin", "tools", "tests", "bench")
    }
    assert len(counts) > 800  # they are found
    assert not {name: count for name, count in counts.items() if count > MAX_LINES}


SHIPPED = list(sources("policy", "proxy", "standin", "tools"))


def test_functions_can_be_read_at_once() -> None:
    long = {
        (name_of(file), node.name)
        for file in SHIPPED
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long


def test_a_class_answers_one_question() -> None:
    large = {
        (name_of(file), node.name)
        for file in SHIPPED
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.ClassDef) and len(methods_of(node)) > MAX_METHODS
    }
    assert not large


def methods_of(node: ast.ClassDef) -> list[str]:
    defined = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [method.name for method in defined if not re.fullmatch("__.*__", method.name)]


def test_links_lead_somewhere() -> None:
    documents = [
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "deploy").rglob("*.md")),
    ]
    wrong = {name_of(file): lost for file in documents if (lost := lost_links_of(file))}
    assert not wrong


def lost_links_of(file: Path) -> list[str]:
    """Targets of a document's links that are not there."""
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text)
    return [target for target in targets if not re.match(r"[a-z]+:", target) and not leads_somewhere(file, target)]


def leads_somewhere(file: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    there = (file.parent / path).resolve() if path else file
    return there.exists() and (not anchor or there.suffix != ".md" or anchor in anchors_of(there))


def anchors_of(file: Path) -> set[str]:
    """GitHub's anchors of a document's headings."""
    headings = re.findall(r"^#+\s+(.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
