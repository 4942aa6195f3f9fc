"""Examples in TypeScript, made JavaScript by its own compiler."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.clients.installed import node_client_folder

COMPILER = ("typescript", "5.9.3")
STRIP = """\
import ts from "typescript";
import { readFileSync, writeFileSync } from "node:fs";
const options = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };
const made = ts.transpileModule(readFileSync(process.argv[2], "utf8"), { compilerOptions: options, reportDiagnostics: true });
if (made.diagnostics.length) throw new Error(made.diagnostics.map((each) => each.messageText).join("\\n"));
writeFileSync(process.argv[3], made.outputText);
"""


async def strip(node: str, source: Path, target: Path) -> None:
    """Raises AssertionError for what the compiler does not take."""
    compiler = await asyncio.to_thread(node_client_folder, *COMPILER)
    program = compiler / "strip.mjs"
    program.write_text(STRIP, "utf-8")
    process = await asyncio.create_subprocess_exec(node, str(program), str(source), str(target))
    assert await process.wait() == 0
