#!/usr/bin/env bash
# finding: a token whose times have fractions, as time.time() gives them, is refused by three verifiers for the rest of the second in which it was made
# about: PyJWT (writes and accepts it), joserfc, jose (npm), jsonwebtoken (npm)
# guess: nbf and iat may have fractions (RFC 7519, 2: NumericDate), so what was valid from 0.1 s on is valid at 0.2 s
# concerns: programs that make a token and use it at once: about every second first request is a 401, and trying again helps; the verifiers take whole seconds of their own clock, and the fraction of the token
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check pyjwt==2.15.1 joserfc==1.8.0
npm install --silent --prefix "$folder" jose@6.2.18 jsonwebtoken@9.0.3

cat > "$folder/verify.mjs" <<'PROGRAM'
import { jwtVerify } from "jose";
import jsonwebtoken from "jsonwebtoken";

const [token, secret, ...moments] = process.argv.slice(2);
const key = Buffer.from(secret);
const told = async (verify) => {
  try {
    await verify();
    return "valid";
  } catch (error) {
    return error.message;
  }
};
const seen = { jose: [], jsonwebtoken: [] };
for (const moment of moments) {
  await new Promise((wait) => setTimeout(wait, moment * 1000 - Date.now()));
  seen.jose.push(await told(() => jwtVerify(token, key)));
  seen.jsonwebtoken.push(await told(() => jsonwebtoken.verify(token, key)));
}
console.log(JSON.stringify(seen));
PROGRAM

cat > "$folder/make.py" <<'PROGRAM'
import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import jwt
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import OctKey

SECRET = "a key of thirty-two bytes, or so"


def told(verify: Callable[[], object]) -> str:
    try:
        verify()
    except Exception as error:
        return str(error)
    return "valid"


def by_joserfc(token: str) -> None:
    joserfc_jwt.JWTClaimsRegistry().validate(joserfc_jwt.decode(token, OctKey.import_key(SECRET)).claims)


made = int(time.time()) + 5.1  # soon, so that all are ready for it
moments = (made + 0.1, made + 1.2)  # in its own second, and in the next one
token = jwt.encode({"sub": "tenant", "iat": made, "nbf": made, "exp": made + 60}, SECRET, "HS256")
node = ["node", "verify.mjs", token, SECRET, *map(str, moments)]
with subprocess.Popen(node, cwd=sys.argv[1], stdout=subprocess.PIPE) as others:
    seen: dict[str, list[str]] = {"PyJWT": [], "joserfc": []}
    for moment in moments:
        time.sleep(max(0, moment - time.time()))
        seen["PyJWT"].append(told(lambda: jwt.decode(token, SECRET, ["HS256"])))
        seen["joserfc"].append(told(lambda: by_joserfc(token)))
    seen |= json.loads(others.stdout.read())
print("PyJWT", version("pyjwt"), "joserfc", version("joserfc"), "jose 6.2.18, jsonwebtoken 9.0.3")
print("guess: valid after 0.1 s, and after 1.2 s")
for name, words in seen.items():
    print(f"seen:  {name}: {words}")
assert all(words[1] == "valid" for words in seen.values())
assert {name for name, words in seen.items() if words[0] == "valid"} == {"PyJWT"}
PROGRAM

"$python" "$folder/make.py" "$folder"
