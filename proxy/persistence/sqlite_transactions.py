"""Transactions of one connection to the gate's SQLite file, each for all that waits, in the thread that the connection is in."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from proxy.persistence.batch_thread import Latecomers
from proxy.persistence.operations import ConstraintViolated, DatabaseUnavailable, Operation
from proxy.persistence.outage import Outage
from proxy.persistence.waiting import Call, Failure, check_text


class Transactions:
    """name: of the file, for errors."""

    def __init__(self, connection: sqlite3.Connection, name: str, outage: Outage) -> None:
        self._connection = connection
        self._name = name
        self._outage = outage

    def write(self, batch: list[Call], latecomers: Latecomers) -> list[Any]:
        """One transaction for all, and for who comes before its commit.

        Where one fails, all are done once more, each so that it can be rolled back alone: that is rare, and dear for all.
        """
        connection, outcomes = self._connection, list[Any]()
        try:
            connection.execute("BEGIN IMMEDIATE")
            for call in batch:
                outcomes.append(self._outcome(connection, call))
                if type(outcomes[-1]) is Failure:
                    break
                if len(outcomes) == len(batch):
                    batch += latecomers()
            else:
                connection.execute("COMMIT")
                self._outage.is_over()
                return outcomes
            _check_transaction(connection, outcomes[-1])
            connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            return self._lost(batch, outcomes, error)
        if len(batch) > 1:
            return self._write_apart(batch)
        self._outage.is_over()
        return outcomes

    def _write_apart(self, batch: Sequence[Call]) -> list[Any]:
        """One transaction for all: who fails is rolled back alone, and a commit that fails is everybody's."""
        connection, outcomes = self._connection, list[Any]()
        try:
            connection.execute("BEGIN IMMEDIATE")
            for call in batch:
                connection.execute("SAVEPOINT operation")
                outcome = self._outcome(connection, call)
                if type(outcome) is Failure:
                    _check_transaction(connection, outcome)
                    connection.execute("ROLLBACK TO operation")
                connection.execute("RELEASE operation")
                outcomes.append(outcome)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            return self._lost(batch, outcomes, error)
        self._outage.is_over()
        return outcomes

    def _lost(self, batch: Sequence[Call], outcomes: list[Any], error: sqlite3.Error) -> list[Any]:
        """Nothing of the transaction is there."""
        _end(self._connection)
        self._outage.begins(error)
        done = [outcome if type(outcome) is Failure else self._failed(error) for outcome in outcomes]
        return done + [self._failed(error) for _ in batch[len(done) :]]

    def read(self, batch: Sequence[Call], latecomers: Latecomers) -> list[Any]:
        """All from one moment, which a latecomer may not be shown."""
        connection = self._connection
        try:
            connection.execute("BEGIN")
            return [self._outcome(connection, call) for call in batch]
        except sqlite3.Error as error:
            return [self._failed(error) for _ in batch]
        finally:
            _end(connection)

    def _outcome(self, connection: sqlite3.Connection, call: Call) -> Any:
        try:
            operation: Operation[Any] = call.operation(*call.args, **call.kwargs)
            try:
                sql, parameters = next(operation)
                while True:
                    check_text(parameters)
                    sql, parameters = operation.send(connection.execute(sql, parameters).fetchall())
            except StopIteration as end:
                return end.value
            finally:
                operation.close()
        except sqlite3.IntegrityError as error:
            return Failure(ConstraintViolated(str(error)))
        except sqlite3.Error as error:
            return self._failed(error)
        except Exception as error:
            return Failure(error)

    def _failed(self, error: sqlite3.Error) -> Failure:
        failure = DatabaseUnavailable(f"{self._name}: {error}")
        failure.__cause__ = error
        return Failure(failure)


def _check_transaction(connection: sqlite3.Connection, failure: Failure) -> None:
    """Raises sqlite3.Error where SQLite has rolled back all of it, as for a full disk."""
    if not connection.in_transaction and isinstance(failure.error.__cause__, sqlite3.Error):
        raise failure.error.__cause__


def _end(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
