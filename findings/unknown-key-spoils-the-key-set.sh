#!/usr/bin/env bash
# finding: one key of a type that is new takes all others of its key set with it: Authlib raises KeyError at a kty and joserfc at a curve that it does not know, wherever in the set it stands; PyJWT, jwcrypto and jose leave it out
# about: joserfc, Authlib (authlib.jose), PyJWT, jwcrypto, jose (npm)
# guess: RFC 7517, section 5: keys of a set whose kty is not understood or whose values are out of the supported ranges are ignored
# concerns: an issuer that publishes a key for ML-DSA (kty AKP) or on a Brainpool curve beside the one in use: every token of the old key is an internal error at once, though nothing about it changed; KeyError is none of the errors of either library
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check joserfc==1.8.0 authlib==1.9.10 pyjwt==2.15.1 jwcrypto==1.6.1 cryptography==50.0.2
npm install --silent --prefix "$folder" jose@6.2.18

cat > "$folder/verify.mjs" <<'PROGRAM'
import { readFileSync } from "node:fs";
import { createLocalJWKSet, jwtVerify } from "jose";

const [token, keys] = JSON.parse(readFileSync(0, "utf8"));
const { payload } = await jwtVerify(token, createLocalJWKSet(keys));
console.log(payload.sub);
PROGRAM

cat > "$folder/verify.py" <<'PROGRAM'
import base64
import json
import subprocess
import sys
import warnings
from importlib.metadata import version

import joserfc.jwk
import joserfc.jwt
import jwcrypto.jwk
import jwcrypto.jwt
import jwt
from cryptography.hazmat.primitives.asymmetric import ec


with warnings.catch_warnings(record=True):  # it says that it is succeeded by joserfc
    from authlib.jose import JsonWebKey, JsonWebToken

private = ec.generate_private_key(ec.SECP256R1())
used = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(private.public_key())) | {"kid": "used", "alg": "ES256"}
brainpool = ec.generate_private_key(ec.BrainpoolP256R1()).public_key().public_numbers()
point = {name: base64.urlsafe_b64encode(value.to_bytes(32, "big")).decode().rstrip("=") for name, value in [("x", brainpool.x), ("y", brainpool.y)]}
NEW = {
    "kty AKP": {"kty": "AKP", "alg": "ML-DSA-44", "kid": "new", "pub": base64.urlsafe_b64encode(bytes(1312)).decode().rstrip("=")},
    "crv brainpoolP256r1": {"kty": "EC", "crv": "brainpoolP256r1", "kid": "new", **point},
}
token = jwt.encode({"sub": "ada"}, private, "ES256", headers={"kid": "used"})


def by_jose(keys: dict) -> str:
    command = ["node", f"{sys.argv[1]}/verify.mjs"]
    return subprocess.run(command, input=json.dumps([token, keys]), capture_output=True, text=True, check=True).stdout.strip()


VERIFIERS = {
    f"joserfc {version('joserfc')}": lambda keys: joserfc.jwt.decode(token, joserfc.jwk.KeySet.import_key_set(keys)).claims["sub"],
    f"Authlib {version('authlib')}": lambda keys: JsonWebToken(["ES256"]).decode(token, JsonWebKey.import_key_set(keys))["sub"],
    f"PyJWT {version('pyjwt')}": lambda keys: jwt.decode(token, jwt.PyJWKSet.from_dict(keys)["used"], ["ES256"])["sub"],
    f"jwcrypto {version('jwcrypto')}": lambda keys: json.loads(
        jwcrypto.jwt.JWT(jwt=token, key=jwcrypto.jwk.JWKSet.from_json(json.dumps(keys))).claims
    )["sub"],
    "jose (npm) 6.2.18": by_jose,
}


def outcome(verify: object, keys: list[dict]) -> str:
    try:
        return verify({"keys": keys})
    except KeyError as error:
        return f"KeyError: {error}"


print("guess: each finds the key of the token, and 'sub' is ada")
seen = {}
for name, verify in VERIFIERS.items():
    assert outcome(verify, [used]) == "ada"
    for what, new in NEW.items():
        outcomes = {outcome(verify, keys) for keys in ([used, new], [new, used])}
        seen[name.split()[0], what] = outcomes
        print(f"seen:  {name}, beside a key with {what}: {' or '.join(sorted(outcomes))}")
wrong = {("Authlib", "kty AKP"): {"KeyError: 'AKP'"}, ("joserfc", "crv brainpoolP256r1"): {"KeyError: 'brainpoolP256r1'"}}
assert seen == {case: {"ada"} for case in seen} | wrong
PROGRAM

"$python" "$folder/verify.py" "$folder"
