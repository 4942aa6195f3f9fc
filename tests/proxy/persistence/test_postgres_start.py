"""Which PostgreSQL a gate starts with: not one that is old, somebody else's, or not the one that it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from proxy.persistence import postgres_link
from proxy.persistence.operations import Operation, Rows, StateError, Statement
from proxy.persistence.postgres import PostgresDatabase
from tests.postgres import PostgresServer, postgres_folder
from tests.proxy.persistence.conftest import opened


def put(run_id: str, gpu_s: float = 1.0) -> Operation[None]:
    yield Statement("INSERT INTO gpu_usage VALUES (?, 'alice', 100, ?)", (run_id, gpu_s))


def names() -> Operation[set[str]]:
    rows = yield Statement("SELECT run_id FROM gpu_usage")
    return {name for (name,) in rows}


def ask(sql: str, *parameters: Any) -> Operation[Rows]:
    return (yield Statement(sql, parameters))


async def test_an_address_where_nobody_is_stops_the_start() -> None:
    with pytest.raises(StateError, match=r"postgresql://127\.0\.0\.1:1/jobs: Connect"):
        await PostgresDatabase("postgresql://gate:hidden@127.0.0.1:1/jobs").open()


@pytest.mark.parametrize("table", ["jobs", "schema_version"])
async def test_tables_of_somebody_else_are_left_alone(
    postgres_server: PostgresServer, postgres_url: str, table: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    await postgres_server.execute(
        "CREATE SCHEMA comfygate", f"CREATE TABLE comfygate.{table} (version TEXT)", database=name
    )
    with pytest.raises(StateError, match=rf"{table}.* not comfygate's: give the gate a database of its own"):
        await PostgresDatabase(postgres_url).open()
    await postgres_server.execute(f"INSERT INTO comfygate.{table} VALUES ('theirs')", database=name)


async def test_other_schemas_are_nobodys_business(postgres_server: PostgresServer, postgres_url: str) -> None:
    await postgres_server.execute("CREATE TABLE public.gpu_usage (x TEXT)", database=postgres_url.rpartition("/")[2])
    async with opened(lambda: PostgresDatabase(postgres_url)) as database:
        await database.run(put, "one")
        assert await database.read(names) == {"one"}


async def test_a_user_that_may_make_no_schema_is_told_what_its_owner_does(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    user = f"guest-{name[-8:]}"
    await postgres_server.execute(f'CREATE ROLE "{user}" LOGIN')
    database = PostgresDatabase(postgres_server.url(name, user))
    with pytest.raises(StateError, match=f'run CREATE SCHEMA comfygate AUTHORIZATION "{user}"'):
        await database.open()
    await postgres_server.execute(f'CREATE SCHEMA comfygate AUTHORIZATION "{user}"', database=name)
    await database.open()
    await database.close()
    await postgres_server.execute(f'DROP OWNED BY "{user}"', f'DROP ROLE "{user}"', database=name)


async def test_a_database_that_is_not_utf8_is_refused(postgres_server: PostgresServer, postgres_url: str) -> None:
    name = f"{postgres_url.rpartition('/')[2]}_latin"
    await postgres_server.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0")
    with pytest.raises(StateError, match="encoding is SQL_ASCII: make one with ENCODING 'UTF8'"):
        await PostgresDatabase(postgres_server.url(name)).open()
    await postgres_server.execute(f"DROP DATABASE {name}")


async def test_an_old_server_is_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_link, "OLDEST_SERVER", 99)
    with pytest.raises(StateError, match=r"the server is PostgreSQL \d+; 99 or newer is needed"):
        await PostgresDatabase(postgres_url).open()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`server.crt` and `server.key` of localhost, and `other.crt`, which signed nothing."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(days=1))
            .not_valid_after(datetime.now(UTC) + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{name}.key").write_bytes(secret)
    return folder


async def test_what_crosses_a_network_is_for_the_right_server_alone(certificates: Path) -> None:
    with postgres_folder() as folder:
        server = PostgresServer(folder)
        server.use_certificate(certificates / "server.crt", certificates / "server.key")
        server.start()
        address = server.url().replace("127.0.0.1", "localhost") + "?sslmode=verify-full&sslrootcert="
        async with opened(lambda: PostgresDatabase(f"{address}{certificates / 'server.crt'}")) as database:
            [row] = await database.read(ask, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            assert row == (True,)
        with pytest.raises(StateError, match="certificate verify failed"):
            await PostgresDatabase(f"{address}{certificates / 'other.crt'}").open()
        elsewhere = address.replace("localhost", "127.0.0.1")
        with pytest.raises(StateError, match="certificate verify failed"):
            await PostgresDatabase(f"{elsewhere}{certificates / 'server.crt'}").open()
        with pytest.raises(StateError, match=r"sslrootcert: there is no file /.*/none\.crt"):
            await PostgresDatabase(f"{address}{certificates / 'none.crt'}").open()
        server.stop()


async def test_a_server_without_a_certificate_is_refused_where_one_is_asked_for(postgres_url: str) -> None:
    with pytest.raises(StateError, match="rejected SSL upgrade"):
        await PostgresDatabase(f"{postgres_url}?sslmode=require").open()
