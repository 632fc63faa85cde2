"""The manager as people use it, beside its database."""

from dataclasses import dataclass

import psycopg

from tests.conftest import Cli
from tests.support.helpers import eventually


@dataclass
class Console:
    """The manager as people use it, and its database."""

    cli: Cli
    connection: psycopg.Connection

    def ask(self, *command: str) -> str:
        done = self.cli(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def heard(self) -> object:
        return self.connection.execute("SELECT last_heartbeat_at FROM container_workers").fetchall()

    def hears(self) -> None:
        """Wait for two heartbeats."""
        for _ in range(2):
            before = self.heard()
            eventually(lambda before=before: self.heard() != before)  # type: ignore[misc]

    def event(self, kind: str) -> dict[str, object]:
        """The details of an event, once it has come to pass."""
        query = "SELECT details FROM worker_events WHERE kind = %s"
        row = eventually(lambda: self.connection.execute(query, (kind,)).fetchone())
        assert row
        details: dict[str, object] = row[0]
        return details
