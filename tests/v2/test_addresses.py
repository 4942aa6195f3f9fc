"""Where clients find the gate: behind TLS that ends before it, below a path, under a name."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.deploy.nginx import below_a_prefix
from tests.programs import needs
from tests.v2.recorder import Recorder, recording
from tests.v2.sdk import WRITTEN_APART, Sdk, running_sdk
from tests.v2.world import OpenWorld, World, as_bytes, decoded, new_picture, pixels, with_picture

SDKS = WRITTEN_APART


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Of a server on loopback, and the file with which its clients know it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "public.pem", folder / "private.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public


async def whole_way(sdk: Sdk, recorder: Recorder) -> list[str]:
    """Every kind of follow-up; the links of the outputs. The key went with each request."""
    picture = new_picture()
    job = await sdk.call("submit", graph=with_picture({"$bytes": as_bytes(picture, "photo.png")}))
    events = sdk.begin("events", job=job["id"])
    job = await sdk.call("result", job=job["id"])
    await events.value()
    (output,) = job["outputs"]
    read = await sdk.call("read", job=job["id"], output=output["id"])
    assert pixels(decoded(read)) == pixels(picture)
    await sdk.call("workflow", job=job["id"])
    await sdk.call("cancel", job=job["id"])
    link = await sdk.call("link", job=job["id"], output=output["id"])
    exchanges = recorder.exchanges()
    assert len(exchanges) >= 9
    assert all(each.request_headers.get("authorization", "").startswith("Bearer cg_") for each in exchanges)
    assert [each.status for each in exchanges if each.status >= 300 and each.method != "HEAD"] == []
    shown = [each.json() for each in exchanges if each.method == "GET" and each.target.endswith(job["id"])]
    return [link["url"], *(found["url"] for found in shown[-1]["outputs"])]


@pytest.mark.parametrize("is_named", [False, True], ids=["without a public address", "with its public address"])
async def test_the_key_goes_with_every_request_behind_tls(
    target: str, worlds: OpenWorld, kind: str, tmp_path: Path, is_named: bool
) -> None:
    """The relay ends TLS, and says nothing of it to the gate. What the SDKs follow stays on their own origin."""
    context, public = certificate(tmp_path)
    async with worlds(target) as world, recording(world.gate.url, context) as front:
        if is_named:
            await world.reconfigure("[server]", f'[server]\npublic_url = "{front.url}"')
        trusted = {"SSL_CERT_FILE": str(public), "NODE_EXTRA_CA_CERTS": str(public)}
        async with running_sdk(kind, tmp_path, front.url, world.gate.keys["alice"], trusted) as sdk:
            urls = await whole_way(sdk, front)
        if is_named:
            assert all(url.startswith(f"{front.url}/api/v2/assets/") for url in urls)
        world.also(front)


@pytest.mark.parametrize("setting", ["", 'public_path = "/comfy/ui"\n'], ids=["untold", "told"])
@needs("nginx")
async def test_below_a_path(target: str, worlds: OpenWorld, kind: str, tmp_path: Path, setting: str) -> None:
    """The links carry the prefix where the gate was told of it; without, they cannot, and the SDKs are told so in docs."""
    async with (
        worlds(target, server=setting) as world,
        below_a_prefix(tmp_path, world.gate.url, "/comfy/ui") as base,
        recording(base.removesuffix("/comfy/ui")) as front,
        running_sdk(kind, tmp_path, f"{front.url}/comfy/ui/", world.gate.keys["alice"]) as sdk,
    ):
        if setting:
            urls = await whole_way(sdk, front)
            assert all(url.startswith(f"{front.url}/comfy/ui/api/v2/assets/") for url in urls)
            world.also(front)
        else:
            job = await sdk.call("submit", graph=with_picture({"$bytes": as_bytes(new_picture(), "photo.png")}))
            assert (await sdk.refused("wait", job=job["id"])).status == 404


async def test_a_key_in_the_address_works_where_the_sdk_can_send_it(world: World, kind: str, tmp_path: Path) -> None:
    """Node's fetch refuses such an address by itself."""
    address = world.recorder.url.replace("//", f"//key:{world.gate.keys['alice']}@")
    async with running_sdk(kind, tmp_path, address, None) as sdk:
        graph = with_picture({"$bytes": as_bytes(new_picture(), "photo.png")})
        if kind == "node":
            assert "credentials" in (await sdk.refused("run", graph=graph)).message
        else:
            assert (await sdk.call("run", graph=graph))["status"] == "succeeded"


async def test_models_of_the_router_are_not_here(world: World) -> None:
    """COMFY_ROUTER_BASE_URL points at the gate, so that the key does not go elsewhere; the gate has no such routes."""
    answer = await world.gate.status("POST", "/v2/models/any/thing", "alice", json={})
    assert answer in (403, 404)
