#!/usr/bin/env bash
# finding: in a key set where an RSA key and an EC key share one kid, PyJWT finds the first only, joserfc finds the second if the keys tell their alg, and two others find it in any case
# about: PyJWT (PyJWKSet), joserfc, jwcrypto, jose (npm)
# guess: RFC 7517 (4.5) says that keys with different kty may have one kid when they stand for each other, so the kty that the token's alg needs decides
# concerns: an issuer that goes from RS256 to ES256 under one kid: its new tokens are refused as if their algorithm were a wrong one, and which of the two the library refuses depends on the order of the keys in the answer
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check pyjwt==2.15.1 joserfc==1.8.0 jwcrypto==1.6.1 cryptography==50.0.2
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
from collections.abc import Callable
from importlib.metadata import version

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet
from jwcrypto.jwk import JWKSet
from jwcrypto.jwt import JWT
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

KID = "2026"
NAMES = ["RS256", "ES256"]
PAIRS = {"RS256": (RSAAlgorithm, rsa.generate_private_key(65537, 2048)), "ES256": (ECAlgorithm, ec.generate_private_key(ec.SECP256R1()))}


def public(name: str, has_alg: bool) -> dict[str, str]:
    algorithm, key = PAIRS[name]
    described = json.loads(algorithm.to_jwk(key.public_key())) | {"kid": KID, "use": "sig"}
    described.pop("key_ops", None)
    return {**described, "alg": name} if has_alg else described


READERS: dict[str, Callable[[str, dict], str]] = {
    "pyjwt": lambda token, keys: jwt.decode(token, jwt.PyJWKSet.from_dict(keys)[KID], algorithms=NAMES)["sub"],
    "joserfc": lambda token, keys: joserfc_jwt.decode(token, KeySet.import_key_set(keys), algorithms=NAMES).claims["sub"],
    "jwcrypto": lambda token, keys: json.loads(JWT(jwt=token, key=JWKSet.from_json(json.dumps(keys)), algs=NAMES).claims)["sub"],
    "jose": lambda token, keys: subprocess.check_output(
        ["node", "verify.mjs", token, json.dumps(keys)], cwd=sys.argv[1], text=True, stderr=subprocess.DEVNULL
    ).strip(),
}


def told(read: Callable[[str, dict], str], name: str, has_alg: bool) -> str:
    token = jwt.encode({"sub": "tenant", "exp": time.time() + 60}, PAIRS[name][1], name, headers={"kid": KID})
    try:
        return read(token, {"keys": [public(each, has_alg) for each in NAMES]})
    except Exception as error:
        return type(error).__name__


print(", ".join(f"{name} {version(name)}" for name in list(READERS)[:3]), "jose (npm) 6.2.18")
print(f"guess: tenant for tokens of {' and '.join(NAMES)}")
seen = {}
for has_alg in (True, False):
    for name, read in READERS.items():
        seen[name, has_alg] = [told(read, algorithm, has_alg) for algorithm in NAMES]
        print(f"seen:  {name}, keys {'with' if has_alg else 'without'} alg: {', '.join(seen[name, has_alg])}")
assert all(answers[0] == "tenant" for answers in seen.values())
assert [case for case, answers in seen.items() if answers[1] != "tenant"] == [("pyjwt", True), ("pyjwt", False), ("joserfc", False)]
PROGRAM

"$python" -W ignore "$folder/verify.py" "$folder"
