#!/usr/bin/env bash
# finding: interrupt() and editHistory() of this client throw a SyntaxError each time that ComfyUI did what they asked for
# about: comfy-ui-client (npm), POST /interrupt and POST /history
# guess: the promise is fulfilled when the server answered 200
# concerns: ComfyUI answers both with 200 and no body, which the client reads as JSON: a program that stops a job believes that it could not, and the lines behind its await are not run
# needs: node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --prefix "$folder" comfy-ui-client@0.1.2

cat > "$folder/run.mjs" <<'PROGRAM'
import assert from "node:assert";
import { createServer } from "node:http";
import { ComfyUIClient } from "comfy-ui-client";

const asked = [];
const server = createServer((request, response) => {
  asked.push(`${request.method} ${request.url}`);
  response.writeHead(200, { "Content-Length": 0 }).end(); // as ComfyUI answers
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

const told = (call) => call.then(() => "fulfilled", (error) => `${error.name}: ${error.message}`);
const client = new ComfyUIClient(`127.0.0.1:${server.address().port}`, "c");
const seen = [await told(client.interrupt()), await told(client.editHistory({ clear: true }))];
server.closeAllConnections();
server.close();

console.log("comfy-ui-client 0.1.2");
console.log("guess: fulfilled, twice");
console.log("seen: ", asked.map((request, at) => `${request}: 200; ${seen[at]}`).join("; "));
assert.deepEqual(asked, ["POST /interrupt", "POST /history"]);
assert(seen.every((words) => words.startsWith("SyntaxError")));
PROGRAM

cd "$folder"
node run.mjs
