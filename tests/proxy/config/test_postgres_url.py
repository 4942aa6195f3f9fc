"""PostgreSQL's address is read in one way or not at all, and its password is told nowhere."""

from __future__ import annotations

import pytest

from proxy.config.jobs import JobsSettings
from proxy.config.postgres_url import PostgresAddress, check_postgres_url, read_postgres_url

GOOD = {
    "postgresql://127.0.0.1:5433/comfygate": PostgresAddress("127.0.0.1", 5433, "comfygate", None, None, {}),
    "postgres://gate@db/jobs_1": PostgresAddress("db", 5432, "jobs_1", "gate", None, {}),
    "postgresql://ga%40te:pa%2Fss%3Aword@db.example/jobs?sslmode=verify-full&sslrootcert=/etc/ca.pem": PostgresAddress(
        "db.example",
        5432,
        "jobs",
        "ga@te",
        "pa/ss:word",
        {"sslmode": "verify-full", "sslrootcert": "/etc/ca.pem"},
    ),
    "postgresql://gate:secret@[::1]:5432/jobs": PostgresAddress("::1", 5432, "jobs", "gate", "secret", {}),
    "postgresql:///jobs?host=/run/postgresql&port=5433": PostgresAddress(
        "/run/postgresql", 5433, "jobs", None, None, {}
    ),
}
BAD = [
    "postgresql://gate:hidden/word@host/jobs",
    "postgresql://gate:hidden?word@host/jobs",
    "postgresql://gate:hidden#word@host/jobs",
    "postgresql://gate:hidden@word@host/jobs",
    "postgresql://gate:hidden@host:port/jobs",
    "postgresql://gate:hidden@host:99999/jobs",
    "postgresql://gate:hidden@host:0/jobs",
    "postgresql://gate:hidden@[word/jobs",
    "postgresql://gate:hidden@one,two/jobs",
    "postgresql://gate:hidden@/jobs",
    "postgresql://gate:hidden@host",
    "postgresql://gate:hidden@host/",
    "postgresql://gate:hidden@host/jobs/more",
    "postgresql://@host/jobs",
    "postgresql:///jobs?host=relative",
    "postgresql:///jobs?host=/run&port=0",
    "postgresql://gate:hidden@host/jobs?host=/run",
    "postgresql://gate:hidden@host/jobs?hidden-word=1",
    "postgresql://gate:hidden@host/jobs?options=-c",
    "mysql://gate:hidden@host/jobs",
    "state.sqlite3",
]


@pytest.mark.parametrize("text", GOOD)
def test_addresses_that_can_be_read(text: str) -> None:
    assert read_postgres_url(text) == GOOD[text]
    assert JobsSettings(database=text).database == text


@pytest.mark.parametrize("text", BAD)
def test_others_are_refused_in_a_sentence_without_the_password(text: str) -> None:
    with pytest.raises(ValueError, match="postgresql://") as caught:
        check_postgres_url(text)
    for part in ("hidden", "word"):
        assert part not in str(caught.value).replace("password", "")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sslmode=on", "sslmode is one of"),
        ("sslmode=require&sslmode=disable", "twice"),
        ("sslcert=", "without a value"),
    ],
)
def test_fields_that_say_nothing_are_refused(query: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_postgres_url(f"postgresql://host/jobs?{query}")


def test_a_log_line_tells_where_it_is_and_nothing_else() -> None:
    assert [address.place for address in GOOD.values()] == [
        "postgresql://127.0.0.1:5433/comfygate",
        "postgresql://db:5432/jobs_1",
        "postgresql://db.example:5432/jobs",
        "postgresql://[::1]:5432/jobs",
        "postgresql:///jobs?host=/run/postgresql",
    ]


def test_what_crosses_a_network_unproven_is_known() -> None:
    assert [address.is_open_to_the_network for address in GOOD.values()] == [False, True, False, False, False]
    assert read_postgres_url("postgresql://db/jobs?sslmode=require").is_open_to_the_network
    assert not read_postgres_url("postgresql://localhost/jobs").is_open_to_the_network
