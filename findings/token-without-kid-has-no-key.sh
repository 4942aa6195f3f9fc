#!/usr/bin/env bash
# finding: PyJWKClient finds no key for a token without kid in a key set that has only one; four other libraries take the one
# about: PyJWT (PyJWKClient), joserfc, python-jose, jwcrypto, jose (npm)
# guess: kid is optional (RFC 7515, 4.1.4), and with one key there is no choice (OpenID Connect Core, 10.1)
# concerns: an issuer with a single key that writes no kid: a service that moves to PyJWKClient refuses each of its tokens, and the message looks for a key named "None"
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check pyjwt==2.15.1 joserfc==1.8.0 python-jose==3.5.0 jwcrypto==1.6.1 cryptography==50.0.2
npm install --silent --prefix "$folder" jose@6.2.18

cat > "$folder/verify.mjs" <<'PROGRAM'
import { createRemoteJWKSet, jwtVerify } from "jose";

const [token, address] = process.argv.slice(2);
const { payload } = await jwtVerify(token, createRemoteJWKSet(new URL(address)));
console.log(payload.sub);
PROGRAM

cat > "$folder/verify.py" <<'PROGRAM'
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet
from jose import jwt as python_jose_jwt
from jwcrypto.jwk import JWKSet
from jwcrypto.jwt import JWT
from jwt.algorithms import ECAlgorithm

private = ec.generate_private_key(ec.SECP256R1())
key = json.loads(ECAlgorithm.to_jwk(private.public_key()))
key.pop("key_ops", None)
KEYS = {"keys": [{**key, "kid": "the-only-one", "alg": "ES256", "use": "sig"}]}
TOKEN = jwt.encode({"sub": "tenant", "exp": time.time() + 60}, private, "ES256")


class Issuer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(KEYS).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *parts: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}/"
READERS: dict[str, Callable[[], str]] = {
    "pyjwt": lambda: jwt.decode(TOKEN, jwt.PyJWKClient(address).get_signing_key_from_jwt(TOKEN), ["ES256"])["sub"],
    "joserfc": lambda: joserfc_jwt.decode(TOKEN, KeySet.import_key_set(KEYS)).claims["sub"],
    "python-jose": lambda: python_jose_jwt.decode(TOKEN, KEYS, ["ES256"])["sub"],
    "jwcrypto": lambda: json.loads(JWT(jwt=TOKEN, key=JWKSet.from_json(json.dumps(KEYS))).claims)["sub"],
    "jose": lambda: subprocess.check_output(["node", "verify.mjs", TOKEN, address], cwd=sys.argv[1], text=True).strip(),
}
seen: dict[str, str] = {}
for name, read in READERS.items():
    try:
        seen[name] = read()
    except jwt.PyJWTError as error:
        seen[name] = f"{type(error).__name__}: {error}"
print(", ".join(f"{name} {version(name)}" for name in list(READERS)[:4]), "jose (npm) 6.2.18")
print("guess: tenant")
for name, answer in seen.items():
    print(f"seen:  {name}: {answer}")
assert "PyJWKClientError" in seen.pop("pyjwt")
assert set(seen.values()) == {"tenant"}
PROGRAM

"$python" -W ignore "$folder/verify.py" "$folder"
