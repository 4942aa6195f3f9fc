"""The gate's database, as each of the two that it may be."""

from tests.proxy.jobs.conftest import database, make_database

__all__ = ["database", "make_database"]
