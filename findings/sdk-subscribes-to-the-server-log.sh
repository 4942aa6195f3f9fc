#!/usr/bin/env bash
# finding: whoever initialises this client subscribes to the log of the whole server, and asks for routes of two custom nodes
# about: @saintno/comfyui-sdk, ws (as the server's WebSocket)
# guess: init() opens the WebSocket and asks what a client needs to know: the queue, the system, the nodes
# concerns: a server or a proxy that lists the routes which clients need; ComfyUI sends its log to whoever subscribes, line by line
# needs: node 20 or newer with npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --prefix "$folder" @saintno/comfyui-sdk@0.3.1 ws@8.23.0

cat > "$folder/program.mjs" << 'PROGRAM'
import { readFileSync } from "node:fs";
import http from "node:http";
import WebSocket, { WebSocketServer } from "ws";
import { ComfyApi } from "@saintno/comfyui-sdk";

globalThis.WebSocket ??= WebSocket;
const LAST = "PATCH /internal/logs/subscribe";
const asked = [];
const server = http.createServer((request, response) => {
  asked.push(decodeURIComponent(`${request.method} ${request.url}`));
  response.setHeader("Content-Type", "application/json");
  response.end(request.url === "/system_stats" ? '{"system": {}, "devices": []}' : "{}");
  if (asked.at(-1) === LAST) report();
});
new WebSocketServer({ server, path: "/ws" }).on("connection", (socket, request) => {
  asked.push(`WebSocket ${request.url.split("?")[0]}`);
  const status = { status: { exec_info: { queue_remaining: 0 } }, sid: "sid" };
  socket.send(JSON.stringify({ type: "status", data: status }));
});

function report() {
  const { version } = JSON.parse(readFileSync(new URL("node_modules/@saintno/comfyui-sdk/package.json", import.meta.url)));
  console.log("@saintno/comfyui-sdk", version, "node", process.version);
  console.log("guess: GET /prompt or /queue, GET /system_stats, WebSocket /ws");
  console.log(`seen:  ${asked.join(", ")}`);
  const isSame = ["GET /manager/version", "GET /object_info/Primitive boolean [Crystools]", LAST].every((each) =>
    asked.includes(each),
  );
  process.exit(isSame ? 0 : 1);
}

setTimeout(() => {
  console.log(`it did not subscribe; it asked: ${asked.join(", ")}`);
  process.exit(1);
}, 20_000);
server.listen(0, "127.0.0.1", () => new ComfyApi(`http://127.0.0.1:${server.address().port}`).init());
PROGRAM
node "$folder/program.mjs"
