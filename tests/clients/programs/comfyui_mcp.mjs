import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { copyFile, readFile } from "node:fs/promises";

const env = { ...process.env, COMFYUI_URL: process.env.COMFY_URL, COMFYUI_AUTH_TOKEN: process.env.COMFY_KEY };
const server = spawn(process.execPath, ["node_modules/comfyui-mcp/dist/index.js"], { env, stdio: ["pipe", "pipe", "inherit"] });
const waiting = new Map();
createInterface({ input: server.stdout }).on("line", (line) => {
  const message = JSON.parse(line);
  if (!message.method) waiting.get(message.id)?.(message);
});
const say = (message) => server.stdin.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
const ask = (id, method, params) =>
  new Promise((resolve) => {
    waiting.set(id, resolve);
    say({ id, method, params });
  });
const call = async (id, name, args) => {
  const { result, error } = await ask(id, "tools/call", { name, arguments: args });
  if (error || result.isError) throw new Error(JSON.stringify(error ?? result));
  return result.content;
};

await ask(0, "initialize", { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "tests", version: "1" } });
say({ method: "notifications/initialized" });
const workflow = JSON.parse(await readFile("workflow.json"));
const queued = await call(1, "enqueue_workflow", { action: "enqueue", workflow });
const prompt_id = /"prompt_id":\s*"([^"]+)"/.exec(queued[0].text)[1];
let state;
for (let id = 2; !/"done":\s*true/.test(state); id++) {
  [{ text: state }] = await call(id, "queue", { action: "status", prompt_id });
  if (id > 100) throw new Error("The job does not end.");
  await new Promise((resolve) => setTimeout(resolve, 200));
}
const [{ text: history }] = await call(999, "get_history", { action: "list" });
const [filename] = /example_\d+_\.png/.exec(history);
console.log(await call(1000, "get_image", { action: "get", filename, save_dir: process.cwd() }).then((shown) => shown.map((part) => part.text)));
await copyFile(filename, "result.png");
server.kill();
