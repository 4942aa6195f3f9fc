import { readFile, writeFile } from "node:fs/promises";
import { ComfyUIClient } from "comfy-ui-client";

const client = new ComfyUIClient(new URL(process.env.COMFY_URL).host, "example");
await client.connect();
const images = await client.getImages(JSON.parse(await readFile("workflow.json")));
await writeFile("result.png", Buffer.from(await images["3"][0].blob.arrayBuffer()));
await client.disconnect();
