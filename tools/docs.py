"""Writes docs/configuration.md, routes.md, packs.md and metrics.md from what the gate itself uses: models, comments, tables.

`python -m tools.docs` writes them; with `--check` it changes nothing and fails when they are not up to date.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from policy.routes import (
    AdminOnly,
    Budget,
    CachedReply,
    Deny,
    MultiCall,
    PassThrough,
    RelayWebSocket,
    Rewrite,
    Route,
    RunFunction,
    SendFile,
    ShowDocs,
    ShowJob,
    StreamEvents,
    TenantRule,
)
from policy.table import ASSETS, CATALOGUE, EXECUTION, FILES, FORBIDDEN, FUNCTIONS, INSIDE, ROUTES, USERS, V2, WEB
from proxy.config.packs import load_packs
from proxy.config.reader import ENVIRONMENT, Config
from proxy.observability.metrics import Metrics
from tools.settings import MUST, Comments, Setting, read_comments, sections_of

ROOT: Final = Path(__file__).resolve().parent.parent
_MADE = "<!-- Made by `python -m tools.docs`. Change the models, config.toml or the route table, not this file. -->\n"
_AREAS: Final = (
    ("Running workflows", EXECUTION),
    ("Files", FILES),
    ("Users, settings, userdata", USERS),
    ("What ComfyUI can do", CATALOGUE),
    ("Inside the server", INSIDE),
    ("Assets", ASSETS),
    ("Comfy API v2, for Comfy-Org's SDKs", V2),
    ("Functions", FUNCTIONS),
    ("Never", FORBIDDEN),
    ("The web UI", WEB),
)
_BUDGETS: Final = {
    Budget.READ: "",
    Budget.SUBMIT: "`prompts`",
    Budget.UPLOAD: "`uploads`",
    Budget.POLL: "`polls`",
    Budget.WEB_UI: "`web_ui_files`",
    Budget.PREVIEW: "`previews`",
}
_SHARED: Final = "the same for everybody, read-only"
_PICKED: Final = "one permitted class; `{}` for any other"
_STREAMED: Final = "what happens to one's own job, as a stream of events"
_CALLED: Final = "a job of a [function](functions.md) that one may call, from named arguments"
_DOCUMENTED: Final = "what one may call, as an OpenAPI document"
_SHOWN: Final = "In a browser a [page](functions.md#in-the-browser) of it."
_RELAYED: Final = "a WebSocket that carries one's own events only"
# What each rule does for a tenant, in an operator's words; a rule that is not here speaks by its docstring.
_WORDS: Final = {
    "catalog.described_model_folders": "model folders without the server's paths",
    "catalog.described_models": "models of a folder, without the server's paths",
    "catalog.extensions": "scripts of the web UI and its extensions, and the gate's own one for its menu",
    "catalog.folder_paths": "names of model folders, not where they lie",
    "catalog.features": "the server's features, without the Manager and the asset store",
    "catalog.in_model_folder": "models are shared; folders that hold no models answer 404",
    "catalog.list_files": "names of one's own files, newest first",
    "catalog.model_folders": "names of model folders",
    "catalog.model_preview": "models are shared; folders that hold no models answer 404",
    "catalog.system_stats": "versions, memory, devices; no command line, no paths",
    "catalog.view_metadata": "the header of a model; models are shared",
    "catalog.describe_all": "the permitted classes only, with one's own files in their lists and the policy's bounds",
    "files.view": "a file of one's own, a shared input, or a preview of one's own job",
    "jobs.edit_history": "`clear` clears one's own history, `delete` passes over what is not one's own",
    "jobs.edit_queue": "`clear` clears one's own waiting jobs, `delete` passes over what is not one's own",
    "jobs.history": "one's own jobs that ended",
    "jobs.history_of": "one job of one's own, `{}` for any other",
    "jobs.interrupt": "stops the named job when it is one's own; without an id, one's own running job",
    "jobs.queue": "one's own waiting and running jobs",
    "jobs.show_own_count": "how many of one's own jobs wait and run",
    "joblist.cancel": "cancels a job of one's own",
    "joblist.cancel_many": "cancels one's own jobs, passes over others",
    "joblist.job": "one job of one's own",
    "joblist.list_jobs": "one's own jobs, counts and pages too",
    "logs.entries": "one line that says whose the log is",
    "logs.subscribe": "nothing is subscribed: the log shows every tenant's work",
    "logs.text": "one line that says whose the log is",
    "prompt.submit": "judged by the tenant's [policy](policy.md), rebuilt, files and outputs in the tenant's folder",
    "prompt.submit_as_admin": "rebuilt, so that it cannot stop ComfyUI; no policy",
    "settings.get_all": "one's own settings of the web UI",
    "settings.get_one": "one's own settings of the web UI",
    "settings.set_all": "one's own settings of the web UI",
    "settings.set_one": "one's own settings of the web UI",
    "uploads.upload_image": "into one's own folder; name, type and content are checked",
    "uploads.upload_mask": "into one's own folder; the picture that it masks is one's own too",
    "userdata.delete": "one's own file",
    "userdata.list_directory": "one's own files",
    "userdata.list_tree": "one's own files and folders",
    "userdata.move": "within one's own folder",
    "userdata.read": "one's own file",
    "userdata.users": "one user, whoever asks",
    "userdata.write": "one's own file",
}


def configuration_page(config_text: str) -> str:
    """docs/configuration.md. config_text: the shipped config.toml."""
    comments = read_comments(config_text)
    parts = [
        _MADE,
        "# Configuration reference\n",
        "All of it stands in one TOML file, `config.toml`, which the repository ships with every setting in it. Unknown keys are errors.\n"
        "`comfygate check` reports every mistake at once, each with its line. A running gate takes a changed file up within a second;\n"
        "a file with a mistake changes nothing, and the log names every mistake.\n",
        "How values are written:\n",
        "| kind | as in |\n|---|---|\n"
        '| size | `"8MiB"`, `"1.5 GB"`, or a number of bytes: `B`, `KB`, `MB`, `GB`, `TB` (of 1000), `KiB`, `MiB`, `GiB`, `TiB` (of 1024), in any case |\n'
        '| duration | `"250ms"`, `"30s"`, `"5m"`, `"24h"`, `"90d"`, or a number of seconds |\n'
        '| rate | `"30/minute"`, or several: `"30/minute; 500/day"` |\n'
        '| rate of bytes | `"10GiB/day"` |\n'
        "| path | relative to the folder of `config.toml`, or absolute |\n",
        "What an environment variable overrides, for containers:\n",
        "| variable | setting |\n|---|---|\n"
        + "".join(f"| `{name}` | `{section}.{key}` |\n" for name, (section, key) in ENVIRONMENT.items()),
        "`[ops]`, `[log]`, `host`, `port`, `header_timeout`, `keepalive_timeout`, `max_header_bytes` and `state_dir` of `[server]`, `url`, `directory` and\n"
        "`connect_timeout` of `[upstream]`, which `[[comfyui]]` is the first, its `url`, `directory` and `shared_directory`,\n"
        "and where `[limits]` and `[jobs]` are stored are read at the start alone: a change of these needs\n"
        "a restart.\n"
        "Everything else is taken up while the gate runs.\n",
    ]
    for section in sections_of(Config):
        words = comments.of_section(section.path)
        parts.append(f"## {section.title}\n")
        parts.append(f"{_sentence(words)}\n" if words else "")
        parts.append("| setting | kind | default | meaning |\n|---|---|---|---|\n" + _rows(section.settings, comments))
    return "\n".join(part for part in parts if part)


def _rows(settings: Sequence[Setting], comments: Comments) -> str:
    rows = ""
    for setting in settings:
        default = f"`{setting.default}`" if setting.default not in ("", MUST) else setting.default
        meaning = comments.of_setting(setting.path, setting.name)
        rows += f"| `{setting.name}` | {_cell(setting.kind)} | {_cell(default)} | {_cell(meaning)} |\n"
    return rows


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ")")) else ".")


def routes_page() -> str:
    """docs/routes.md."""
    parts = [
        _MADE,
        "# What is allowed\n",
        "One row for each route of ComfyUI that the gate knows; a route without a row answers 404, to admins too. It stands in\n"
        "`policy/table.py`, and this page is made from it. Routes of custom nodes: [custom-nodes.md](custom-nodes.md). `comfygate routes` lists\n"
        "what a configuration opens.\n",
        "- **path**: ComfyUI serves most routes twice, with and without `/api`; the gate accepts the same spellings.\n"
        "- **tenants**: what a key, token or session with `role = \"user\"` gets. *One's own* is what belongs to the caller's tenant; what is\n"
        "  another tenant's answers exactly as what does not exist.\n"
        '- **admins**: `role = "admin"` sees ComfyUI as it is, with no namespace.\n'
        "- **scope**: what the credential needs. **also counts as**: the budget it draws on, beside `requests`.\n",
    ]
    for title, routes in _AREAS:
        parts.append(f"## {title}\n")
        parts.append(
            "| path | tenants | admins | scope | also counts as |\n|---|---|---|---|---|\n"
            + "".join(map(_route_row, routes))
        )
    shown = [route for _, routes in _AREAS for route in routes]
    assert tuple(shown) == ROUTES, "an area of the table is not on the page: add it to _AREAS"
    return "\n".join(parts)


def _route_row(route: Route) -> str:
    also = [f"`{prefix or '/'}…`" for prefix in route.prefix.value[1:]]
    path = f"`{route.name}`" + (f" (also {', '.join(also)})" if also else "")
    admins = "as it is" if isinstance(route.admin, PassThrough | RelayWebSocket) else _words_of(route.admin)
    return f"| {path} | {_cell(_words_of(route.tenant))} | {_cell(admins)} | `{route.needs}` | {_BUDGETS[route.budget]} |\n"


def _words_of(rule: TenantRule) -> str:
    match rule:
        case PassThrough():
            return _SHARED
        case AdminOnly(why=why):
            return f"**admins only**: {why}"
        case Deny(why=why):
            return f"**refused**: {why}"
        case RelayWebSocket():
            return _RELAYED
        case RunFunction():
            return _CALLED
        case StreamEvents():
            return _STREAMED
        case ShowDocs(is_negotiated=is_negotiated):
            return _DOCUMENTED + (", or a page where a browser asks for one" if is_negotiated else "")
        case MultiCall(rule=asked, has_page=True):
            return f"{_say(asked)} {_SHOWN}"
        case CachedReply(rule=described, picks=picks):
            return _say(described) if picks is None else _PICKED
        case MultiCall(rule=asked) | ShowJob(rule=asked) | SendFile(rule=asked):
            return _say(asked)
        case Rewrite(request=request, reply=reply):
            return _say(request) if _name_of(request) in _WORDS or reply is None else _say(reply)


def _name_of(function: Any) -> str:
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"


def _say(function: Any) -> str:
    return _WORDS.get(_name_of(function)) or " ".join((inspect.getdoc(function) or "one's own only").split())


def packs_page() -> str:
    """docs/packs.md."""
    parts = [
        _MADE,
        "# Packs of custom nodes\n",
        "What `[upstream] packs = [...]` opens, pack by pack; [custom-nodes.md](custom-nodes.md) says what each kind means. What is *never* opened stays\n"
        "closed, and what is for *admins* stays theirs, whether the pack is named or not.\n",
    ]
    for name, pack in load_packs().items():
        rows = "".join(
            f"| `{' '.join(row.methods)} {row.path}` | {row.kind} | {_cell(row.note)} |\n" for row in pack.routes
        )
        note = f" {pack.note}" if pack.note else ""
        parts.append(
            f'## `"{name}"`\n\n[{pack.title}]({pack.repository}).{note}\n\n| call | kind | what it is |\n|---|---|---|\n{rows}'
        )
    return "\n".join(parts)


def metrics_page() -> str:
    """docs/metrics.md."""
    parts = [
        _MADE,
        "# Metrics\n",
        "What `/metrics` on the ops listener tells, in Prometheus's text format; beside it the process's own `process_…` and `python_info`.\n"
        "A counter's samples end in `_total`, a histogram's in `_bucket`, `_sum` and `_count`. Label values come from the route table, the configuration,\n"
        "the classes and models that ComfyUI lists, and fixed words, never from what clients send. A tenant of `-` is nobody: the caller was not known.\n",
        "| metric | kind | labels | what it counts |\n|---|---|---|---|",
    ]
    for metric in Metrics().described():
        labels = ", ".join(f"`{name}`" for name in metric.labels)
        parts.append(f"| `{metric.name}` | {metric.kind} | {labels} | {_cell(metric.words)} |")
    return "\n".join(parts) + "\n"


def pages(root: Path = ROOT) -> dict[Path, str]:
    text = (root / "config.toml").read_text(encoding="utf-8")
    return {
        root / "docs" / "configuration.md": configuration_page(text),
        root / "docs" / "routes.md": routes_page(),
        root / "docs" / "packs.md": packs_page(),
        root / "docs" / "metrics.md": metrics_page(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 when a page is not up to date")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    options = parser.parse_args(arguments)
    made = pages(options.root)
    stale = [file for file, text in made.items() if not file.exists() or file.read_text("utf-8") != text]
    for file in stale:
        if options.check:
            print(f"{file} is not up to date: run `python -m tools.docs`", file=sys.stderr)
        else:
            file.write_text(made[file], encoding="utf-8", newline="\n")
            print(f"wrote {file}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
