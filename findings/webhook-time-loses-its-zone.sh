#!/usr/bin/env bash
# finding: a webhook whose time is an aware datetime of another zone than UTC is signed for another moment, because the zone is thrown away and the clock face kept
# about: standardwebhooks (Python), svix (Python, the same code), standardwebhooks (npm, as the receiver)
# guess: one moment has one signature, whatever zone the datetime that tells it is in
# concerns: a sender whose times are in the zone of its users or its database: the header has the true seconds, the signature others, and every receiver says "No matching signature found"; tests on a machine in UTC pass
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check standardwebhooks==1.1.0 svix==2.9.1
npm install --silent --prefix "$folder" standardwebhooks@1.1.1

cat > "$folder/receive.cjs" <<'PROGRAM'
const { Webhook } = require("standardwebhooks");

const [secret, body, headers] = process.argv.slice(2);
try {
  new Webhook(secret).verify(body, JSON.parse(headers));
  console.log("valid");
} catch (error) {
  console.log(error.message);
}
PROGRAM

cat > "$folder/send.py" <<'PROGRAM'
import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from importlib.metadata import version

import standardwebhooks
import svix

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = '{"type": "job.succeeded"}'
moment = datetime.now(timezone.utc)
zones = {"UTC": moment, "UTC+02:00": moment.astimezone(timezone(timedelta(hours=2)))}


def received(signature: str, at: datetime) -> str:
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}
    arguments = [SECRET, BODY, json.dumps(headers)]
    return subprocess.check_output(["node", "receive.cjs", *arguments], cwd=sys.argv[1], text=True).strip()


seen = {}
for library in (standardwebhooks, svix):
    signer = library.Webhook(SECRET)
    for zone, at in zones.items():
        seen[library.__name__, zone] = received(signer.sign("msg_1", at, BODY), at)
print("standardwebhooks", version("standardwebhooks"), "svix", version("svix"), "standardwebhooks (npm) 1.1.1")
print("guess: valid; the two datetimes are equal")
for (name, zone), answer in seen.items():
    print(f"seen:  {name}, {zone}: {answer}")
assert zones["UTC"] == zones["UTC+02:00"]
for name in ("standardwebhooks", "svix"):
    assert seen[name, "UTC"] == "valid"
    assert seen[name, "UTC+02:00"] == "No matching signature found"
PROGRAM

"$python" "$folder/send.py" "$folder"
