#!/usr/bin/env bash
# finding: this client gives each run a new seed, but not in nodes of a subgraph, whose ids are no numbers, and says nothing of those
# about: comfyui-async-api-tool
# guess: every node with an input "seed" is found; ids are texts, as ComfyUI has them
# concerns: the web UI exports the nodes of subgraphs as "57:3", and a third of ComfyUI's templates have some: each run of such a workflow makes the same picture, and ComfyUI answers from its cache
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfyui-async-api-tool==0.1.0 aiohttp==3.14.5

"$python" - <<'PROGRAM'
import copy
from importlib.metadata import version

from comfyui_async_api_tool import WorkflowJson

WORKFLOW = {node: {"class_type": "KSampler", "inputs": {"seed": 7, "steps": 20}} for node in ("3", "57:3")}
helper = WorkflowJson()


def seeds_of_two_runs(workflow: dict[str, dict]) -> dict[str, set[int]]:
    """The seeds that each node has, with the fields that the client finds and its own defaults for them."""
    fields = helper.default_exposed_fields(helper.extract_scalar_inputs(workflow))
    runs = [helper.batch_modify(copy.deepcopy(workflow), helper.build_modifications(fields)) for _ in range(2)]
    return {node: {run[node]["inputs"]["seed"] for run in runs} for node in workflow}


seeds = seeds_of_two_runs(WORKFLOW)
found = helper.find_nodes_with_input_key(WORKFLOW, "seed")
print("comfyui-async-api-tool", version("comfyui-async-api-tool"))
print(f"guess: {list(WORKFLOW)} have a seed, and each has two in two runs")
print(f"seen:  {found} have one; '3' had {len(seeds['3'])} in two runs, '57:3' {len(seeds['57:3'])}, which is {seeds['57:3']}")
assert found == ["3"]
assert len(seeds["3"]) == 2
assert seeds["57:3"] == {7}
PROGRAM
