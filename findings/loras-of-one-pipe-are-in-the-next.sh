#!/usr/bin/env bash
# finding: a LoRA and a control picture that are given to one pipe of this client are in every pipe that the process makes afterwards, since all share the lists of the defaults
# about: @stable-canvas/comfyui-client (npm)
# guess: new EfficientPipe() begins without any, as its description has it: a new pipe for each picture, and no lora() where none is wanted
# concerns: a service that makes a pipe for each request: each job runs with the LoRAs and control pictures of all jobs before it, those of other people too, until the process is restarted
# needs: node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --prefix "$folder" @stable-canvas/comfyui-client@1.5.9

cat > "$folder/pipes.mjs" <<'PROGRAM'
import assert from "node:assert/strict";
import { EfficientPipe, Workflow } from "@stable-canvas/comfyui-client";

/** What the pipe would send, without a server: its workflow, as build() and end() make it. */
function sent(pipe) {
  pipe.build();
  const nodes = Object.values(pipe._workflow.end().prompt);
  const loras = nodes.filter((node) => node.class_type === "LoRA Stacker").map((node) => node.inputs);
  const loader = nodes.find((node) => node.class_type === "Efficient Loader");
  return {
    model: loader.inputs.ckpt_name,
    loras: loras.flatMap((inputs) => Object.entries(inputs).filter(([name, value]) => /^lora_name_/.test(name) && value !== "None").map(([, value]) => value)),
    controls: nodes.filter((node) => node.class_type === "ControlNetLoader").map((node) => node.inputs.control_net_name),
  };
}

assert.ok(new Workflow(), "the package is the one that is meant");
const first = sent(new EfficientPipe().model("one.safetensors").lora("ink.safetensors").cnet("depth.safetensors", Buffer.from("picture")));
const second = sent(new EfficientPipe().model("two.safetensors").lora("film.safetensors"));
const third = sent(new EfficientPipe().model("three.safetensors"));
console.log("@stable-canvas/comfyui-client 1.5.9");
console.log("guess: the second has film.safetensors alone, the third has none");
for (const [name, pipe] of Object.entries({ first, second, third })) console.log(`seen:  the ${name}: ${JSON.stringify(pipe)}`);
assert.deepEqual([first.model, second.model, third.model], ["one.safetensors", "two.safetensors", "three.safetensors"]);
assert.deepEqual(first.loras, ["ink.safetensors"]);
assert.deepEqual(second.loras, ["ink.safetensors", "film.safetensors"]);
assert.deepEqual(third.loras, ["ink.safetensors", "film.safetensors"]);
assert.deepEqual(third.controls, ["depth.safetensors"]);
PROGRAM

node "$folder/pipes.mjs"
