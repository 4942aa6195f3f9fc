"""The pack's rows, as an operator writes them."""

from __future__ import annotations


def _row(path: str, kind: str, *methods: str, more: str = "") -> str:
    named = ", ".join(f'"{method}"' for method in methods or ("GET",))
    return f'\n[[routes]]\npath = "/gate-pack/{path}"\nmethods = [{named}]\nkind = "{kind}"\n{more}'


ROWS = "".join(
    (
        _row("files/{file...}", "static", more='query = ["v"]\n'),
        _row("models", "shared-read"),
        _row("picture/{name}", "shared-read", more='suffixes = [".png"]\n'),
        _row("view", "own-file"),
        _row("probe", "own-file", more="heavy = true\n"),
        _row("bytes/{id}", "own-id", "GET", "PUT", more='inputs = ["GatePackLoad.id"]\nmax_bytes = "512KiB"\n'),
        _row("answer", "own-job", "POST", more='classes = ["GatePackWait"]\nnode = "node"\n'),
        _row("answer-form", "own-job", "POST", more='classes = ["GatePackWait"]\nbody = "form"\nnode = "id"\n'),
        _row("restart", "admin", "GET", "POST", more='note = "it starts ComfyUI anew"\n'),
        _row("disk", "never", more='note = "it lists the disk"\n'),
    )
)
