#!/usr/bin/env bash
# finding: python-jose refuses a token whose kid names a key of the set, when a key of another type stands before it
# about: python-jose, jwcrypto, jose (npm)
# guess: kid says which key it is (RFC 7515, 4.1.4), and the order of a key set says nothing (RFC 7517, 5.1)
# concerns: an issuer that adds a key of another type at the head of its key set, as in a change from RS256 to ES256, or for encryption: all tokens of the old key are refused at once, though nothing about them changed
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check "python-jose[cryptography]==3.5.0" jwcrypto==1.6.1 cryptography==50.0.2
npm install --silent --prefix "$folder" jose@6.2.18

cat > "$folder/verify.mjs" <<'PROGRAM'
import { createLocalJWKSet, jwtVerify } from "jose";

const [token, keys] = process.argv.slice(2);
const { payload } = await jwtVerify(token, createLocalJWKSet(JSON.parse(keys)));
console.log(payload.sub);
PROGRAM

cat > "$folder/verify.py" <<'PROGRAM'
import json
import subprocess
import sys
import time
from importlib.metadata import version

from jose import jwt
from jose.exceptions import JOSEError
from jwcrypto.jwk import JWK, JWKSet
from jwcrypto.jwt import JWT

old = JWK.generate(kty="RSA", size=2048, kid="old", use="sig", alg="RS256")
new = JWK.generate(kty="EC", crv="P-256", kid="new", use="sig", alg="ES256")
made = JWT(header={"alg": "RS256", "kid": "old"}, claims={"sub": "tenant", "exp": int(time.time()) + 60})
made.make_signed_token(old)
TOKEN = made.serialize()
ORDERS = {"old, new": [old, new], "new, old": [new, old]}


def by_python_jose(keys: dict) -> str:
    try:
        return jwt.decode(TOKEN, keys, algorithms=["RS256", "ES256"])["sub"]
    except JOSEError as error:
        return f"{type(error).__name__}: {error}"


def by_jwcrypto(keys: dict) -> str:
    return json.loads(JWT(jwt=TOKEN, key=JWKSet.from_json(json.dumps(keys))).claims)["sub"]


def by_jose(keys: dict) -> str:
    return subprocess.check_output(["node", "verify.mjs", TOKEN, json.dumps(keys)], cwd=sys.argv[1], text=True).strip()


print("python-jose", version("python-jose"), "jwcrypto", version("jwcrypto"), "jose (npm) 6.2.18")
print("guess: tenant, for either order")
seen = {}
for order, members in ORDERS.items():
    keys = {"keys": [member.export_public(as_dict=True) for member in members]}
    seen[order] = by_python_jose(keys)
    others = [by_jwcrypto(keys), by_jose(keys)]
    print(f"seen:  keys {order}: python-jose {seen[order]!r}, the others {others}")
    assert others == ["tenant", "tenant"]
assert seen["old, new"] == "tenant"
assert seen["new, old"].startswith("JWKError")
PROGRAM

"$python" -W ignore "$folder/verify.py" "$folder"
