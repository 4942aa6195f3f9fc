#!/usr/bin/env bash
# finding: ratelimit-header-parser, which is of the makers of express-rate-limit, reads NaN and Invalid Date from the headers that the latter sends as draft-8; of draft-6, draft-7 and the old X- headers it reads the numbers
# about: ratelimit-header-parser, express-rate-limit (npm)
# guess: the numbers, or undefined as for an answer without such headers; draft-8 has them as r, t and q beside a name: "5-in-1min"; r=4; t=60
# concerns: a client that waits while remaining is under 1 never waits, since each comparison with NaN is false, and a timer until an invalid date fires at once; the older forms have no names, so a proxy with several limits sends the new one
# needs: node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --prefix "$folder" express@5.3.0 express-rate-limit@8.7.5 ratelimit-header-parser@0.1.0

cat > "$folder/parse.mjs" <<'PROGRAM'
import assert from "node:assert";
import express from "express";
import { rateLimit } from "express-rate-limit";
import { parseRateLimit } from "ratelimit-header-parser";

async function answer(options) {
  const app = express();
  app.use(rateLimit({ windowMs: 60000, limit: 5, standardHeaders: false, legacyHeaders: false, ...options }));
  app.get("/", (_, response) => response.send("pong"));
  const server = app.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const response = await fetch(`http://127.0.0.1:${server.address().port}/`);
  await response.text();
  server.close();
  return response;
}

console.log("ratelimit-header-parser 0.1.0, express-rate-limit 8.7.5");
console.log("guess: limit 5, remaining 4, and a date within a minute");
const forms = {
  "X-RateLimit": { legacyHeaders: true },
  "draft-6": { standardHeaders: "draft-6" },
  "draft-7": { standardHeaders: "draft-7" },
  "draft-8": { standardHeaders: "draft-8" },
};
for (const [name, options] of Object.entries(forms)) {
  const response = await answer(options);
  const { limit, remaining, reset } = parseRateLimit(response);
  const sent = response.headers.get("ratelimit") ?? "one header for each number";
  console.log(`seen:  ${name} (${sent}): limit ${limit}, remaining ${remaining}, reset ${Number.isNaN(reset.getTime()) ? reset : "a date"}`);
  const expected = name === "draft-8" ? [NaN, NaN, true] : [5, 4, false];
  assert.deepStrictEqual([limit, remaining, Number.isNaN(reset.getTime())], expected);
}
assert.strictEqual(parseRateLimit(new Response("")), undefined);
PROGRAM

node "$folder/parse.mjs"
