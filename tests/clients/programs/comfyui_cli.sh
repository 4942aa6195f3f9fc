address=${COMFY_URL#http://}
comfyui-cli --host "${address%:*}" --port "${address##*:}" workflow run workflow.json --save-to saved
cp saved/* result.png
