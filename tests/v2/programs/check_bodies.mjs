// Bodies as the schemas of @comfyorg/sdk/low take them: a JSON line each, {"kind": "job", "text": "…"}; the answer is a line each, null or what is wrong.

import { createInterface } from "node:readline";
import { schemas } from "@comfyorg/sdk/low";

const kinds = {
  job: schemas.zJob,
  asset: schemas.zAsset,
  error: schemas.zErrorEnvelope,
  workflow: schemas.zJobWorkflowResponse,
  progress: schemas.zProgress,
  output: schemas.zOutput,
};
const mistakeIn = ({ kind, text }) => {
  try {
    kinds[kind]?.parse(JSON.parse(text));
    return null;
  } catch (error) {
    return error.message;
  }
};
for await (const line of createInterface({ input: process.stdin })) console.log(JSON.stringify(mistakeIn(JSON.parse(line))));
