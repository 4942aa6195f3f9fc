"""Clients that few people use, and how each is run: data alone, for `make clients` (run_programs.py)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Row:
    """door: field (the client has a place for the key), address (`http://key:KEY@host`) or connect (`comfygate connect`).

    requires: the client first, pinned. loads: its workflow starts with a picture that it uploads. node: the oldest major version that it runs on.
    """

    program: str
    requires: tuple[str, ...]
    door: str
    loads: bool = False
    node: int = 18

    @property
    def name(self) -> str:
        return self.requires[0].partition("[")[0].partition("==")[0]

    @property
    def version(self) -> str:
        return self.requires[0].partition("==")[2]

    @property
    def what(self) -> str:
        ways = {
            "field": "",
            "address": ", the key in its address",
            "connect": ", through `comfygate connect`",
        }
        first = "uploads a picture, runs a workflow with it" if self.loads else "runs a workflow"
        return f"{first}, fetches the picture{ways[self.door]}"


PYTHON = (
    Row("comfy_script.py", ("comfy-script[client,runtime]==0.6.1",), "field"),
    Row("comfykit.py", ("comfykit==0.1.12",), "field"),
    Row("comfyui_async_api_tool.py", ("comfyui-async-api-tool==0.1.0",), "field", loads=True),
    Row("comfyui_skill_cli.sh", ("comfyui-skill-cli==0.2.14",), "field"),
    Row("comfy_catapult.py", ("comfy-catapult==3.0.0",), "address"),
    Row("comfy_commander.py", ("comfy-commander==0.1.2",), "address"),
    Row("comfy_headless.py", ("comfy-headless==3.1.1",), "address", loads=True),
    Row("comfyui_workflow_client.py", ("comfyui-workflow-client==0.1.0",), "address", loads=True),
    Row("comfyui_xy.py", ("comfyui-xy==0.3.0",), "address", loads=True),
    Row("dcc_mcp_comfyui.py", ("dcc-mcp-comfyui==0.1.6",), "address", loads=True),
    Row("comfy_mcp.py", ("comfy-mcp==0.10.0", "comfy-cli==1.23.0"), "connect"),
    Row("comfy_toolkit.py", ("comfy-toolkit==0.1.0", "websocket-client==1.9.2"), "connect"),
    Row("comfyui_cli.sh", ("comfyui-cli==0.1.1",), "connect"),
    Row("mcp_comfyui.py", ("mcp-comfyui==0.1.0", "mcp[cli]==1.29.0"), "connect"),
)
NODE = (
    Row("comfyui_mcp.mjs", ("comfyui-mcp==0.52.203",), "field", node=22),
    Row("comfy_ui_client.mjs", ("comfy-ui-client==0.1.2",), "connect"),
)
