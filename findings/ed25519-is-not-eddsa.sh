#!/usr/bin/env bash
# finding: PyJWT refuses a token whose alg is Ed25519, and leaves a key out of a key set for bearing that name; three other libraries take both
# about: PyJWT, joserfc, jwcrypto, jose (npm)
# guess: RFC 9864 names the algorithm Ed25519 and deprecates EdDSA for it, so what verifies the one verifies the other: key and signature are the same
# concerns: an issuer that takes the new name up: for PyJWT its key set is empty, and the sentence that says so suspects the package cryptography; naming the key Ed25519 and the token EdDSA, to please the old, is refused by two of the others
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
from base64 import urlsafe_b64encode
from collections.abc import Callable
from importlib.metadata import version

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet
from jwcrypto.jwk import JWKSet
from jwcrypto.jwt import JWT

NAMES = ["EdDSA", "Ed25519"]
CASES = [(named, signed) for named in NAMES for signed in NAMES]  # alg of the key, alg of the token
private = Ed25519PrivateKey.generate()


def coded(value: bytes | dict[str, object]) -> str:
    return urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=").decode()


def token_of(name: str) -> str:
    signed = f"{coded({'alg': name, 'kid': '1'})}.{coded({'sub': 'tenant', 'exp': int(time.time()) + 60})}"
    return f"{signed}.{coded(private.sign(signed.encode()))}"


def keys_of(name: str) -> dict[str, list[dict[str, str]]]:
    point = coded(private.public_key().public_bytes_raw())
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": point, "kid": "1", "use": "sig", "alg": name}]}


READERS: dict[str, Callable[[str, dict], str]] = {
    "pyjwt": lambda token, keys: jwt.decode(token, jwt.PyJWKSet.from_dict(keys)["1"], algorithms=NAMES)["sub"],
    "joserfc": lambda token, keys: joserfc_jwt.decode(token, KeySet.import_key_set(keys), algorithms=NAMES).claims["sub"],
    "jwcrypto": lambda token, keys: json.loads(JWT(jwt=token, key=JWKSet.from_json(json.dumps(keys)), algs=NAMES).claims)["sub"],
    "jose": lambda token, keys: subprocess.check_output(
        ["node", "verify.mjs", token, json.dumps(keys)], cwd=sys.argv[1], text=True, stderr=subprocess.DEVNULL
    ).strip(),
}


def told(read: Callable[[str, dict], str], named: str, signed: str) -> str:
    try:
        return read(token_of(signed), keys_of(named))
    except Exception as error:
        return type(error).__name__


seen = {name: [told(read, *case) for case in CASES] for name, read in READERS.items()}
print(", ".join(f"{name} {version(name)}" for name in list(READERS)[:3]), "jose (npm) 6.2.18")
print(f"guess: tenant for each of (alg of the key, alg of the token) = {CASES}")
for name, answers in seen.items():
    print(f"seen:  {name}: {', '.join(answers)}")
taken = {name: [answer == "tenant" for answer in answers] for name, answers in seen.items()}
assert taken["pyjwt"] == [True, False, False, False]
assert taken["joserfc"][3] and taken["jwcrypto"][3] and taken["jose"][3]
assert not taken["joserfc"][2] and not taken["jose"][2]
PROGRAM

"$python" -W ignore "$folder/verify.py" "$folder"
