mkdir data
comfyui-skill --no-update-check --json server add --id gate --url "$COMFY_URL" --auth "$COMFY_KEY"
comfyui-skill --no-update-check --json --server gate workflow import workflow.json --name example
comfyui-skill --no-update-check --json run gate/example
cp outputs/* result.png
