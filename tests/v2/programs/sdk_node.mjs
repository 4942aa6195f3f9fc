// @comfyorg/sdk, told line by line what to call: `{"n": 1, "do": "submit", "graph": {…}}` on standard input, the outcome on standard output.

import { createInterface } from "node:readline";
import { Comfy } from "@comfyorg/sdk";

const client = new Comfy({ apiKey: process.env.COMFY_API_KEY });
const jobs = new Map();
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const encoded = (bytes) => Buffer.from(bytes).toString("base64");

const bytesOf = ({ data, filename, content_type }) =>
  client.assets.fromBytes(new Uint8Array(Buffer.from(data, "base64")), { filename, contentType: content_type });

// The graph with handles: {"$bytes": {…}} is a new asset, {"$file": path} too, {"$asset": id} one that is there.
const filled = async (value) => {
  if (Array.isArray(value)) return Promise.all(value.map(filled));
  if (value === null || typeof value !== "object") return value;
  if ("$bytes" in value) return bytesOf(value.$bytes);
  if ("$file" in value) return client.assets.fromFile(value.$file);
  if ("$asset" in value) return client.assets.get(value.$asset);
  return Object.fromEntries(await Promise.all(Object.entries(value).map(async ([name, each]) => [name, await filled(each)])));
};

const toldOutput = (found) => ({
  node_id: found.nodeId,
  name: found.name,
  type: found.type,
  id: found.id,
  size_bytes: found.sizeBytes,
  content_type: found.contentType,
  job_id: found.jobId ?? null,
});
const toldAsset = async (found) => ({
  id: found.id,
  hash: await found.hash(),
  file_path: found.filePath,
  created_new: found.createdNew,
  job_id: found.jobId ?? null,
  expires_at: found.expiresAt ?? null,
});
const toldEvent = (found) => {
  if (found.kind === "outputReady") return { kind: found.kind, output: toldOutput(found.output) };
  if (found.kind === "preview")
    return { kind: found.kind, node_id: found.nodeId, content_type: found.contentType, bytes: encoded(found.data) };
  if (found.kind === "statusChange") return { kind: found.kind, status: found.status, queue_position: found.queuePosition };
  if (found.kind !== "progress") return found;
  const { kind, value, message, nodesDone, nodesTotal, currentNode, step, steps } = found;
  return { kind, value, message, nodes_done: nodesDone, nodes_total: nodesTotal, current_node: currentNode, step, steps };
};
const toldError = (error) => {
  const bases = [];
  for (let each = error.constructor; each?.name; each = Object.getPrototypeOf(each)) bases.push(each.name);
  return {
    class: error.constructor.name,
    bases,
    message: error.cause ? `${error.message}: ${error.cause.message}` : error.message,
    code: error.code ?? null,
    http_status: error.httpStatus ?? null,
    details: error.details ?? null,
    retry_after: error.retryAfter ?? null,
    request_id: error.requestId ?? null,
  };
};
const kept = (job) => {
  jobs.set(job.id, job);
  return { id: job.id, status: job.status, error: job.error, outputs: job.outputs.map(toldOutput) };
};
const jobOf = async (id) => jobs.get(id) ?? (await client.jobs.get(id));
const outputOf = async ({ job, output }) => (await jobOf(job)).outputs.find((each) => each.id === output);
const workflowOf = async (graph) => client.workflows.fromJson(await filled(graph));

const calls = {
  submit: async ({ graph, api_key, idempotency_key }) =>
    kept(await client.submit(await workflowOf(graph), { apiKey: api_key, idempotencyKey: idempotency_key })),
  run: async ({ graph, api_key }) => kept(await client.run(await workflowOf(graph), { apiKey: api_key })),
  get: async ({ job }) => kept(await client.jobs.get(job)),
  wait: async ({ job }) => kept(await (await jobOf(job)).wait()),
  result: async ({ job }) => kept(await (await jobOf(job)).result()),
  cancel: async ({ job }) => kept(await (await jobOf(job)).cancel()),
  workflow: async ({ job }) => {
    const { workflow, format } = await (await jobOf(job)).getWorkflow();
    return { graph: workflow, format };
  },
  events: async ({ n, job }) => {
    for await (const event of (await jobOf(job)).events()) say({ n, event: toldEvent(event) });
  },
  read: async ({ range, ...which }) => encoded(await (await outputOf(which)).toBytes({ range: range ?? undefined })),
  save: async ({ path, ...which }) => (await outputOf(which)).toFile(path),
  link: async (which) => {
    const { url, expiresAt } = await (await outputOf(which)).getDownloadUrl();
    return { url, expires_at: expiresAt };
  },
  upload: async (given) => {
    const asset = given.path ? client.assets.fromFile(given.path) : bytesOf(given);
    await asset.commit();
    return toldAsset(asset);
  },
  asset: async ({ asset }) => toldAsset(await client.assets.get(asset)),
  delete: async ({ asset }) => client.assets.delete(asset),
  exists: async ({ hash }) => client.low.headAssetByHash(hash),
  from_hash: async ({ hash, file_path }) => client.low.assetFromHash(hash, { filePath: file_path }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const given = JSON.parse(line);
  calls[given.do](given).then(
    (value) => say({ n: given.n, value: value ?? null }),
    (error) => say({ n: given.n, error: toldError(error) }),
  );
}
process.exit();
