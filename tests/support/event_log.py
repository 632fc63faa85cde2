"""What stands in the log of events, held against the table of kinds."""

from typing import Any

import psycopg

from skyctl.domain.events import EventKind


def check_events(connection: psycopg.Connection) -> None:
    """Every event has a kind of the table, and details with the keys of that kind."""
    for kind, details in connection.execute("SELECT DISTINCT kind, details FROM worker_events").fetchall():
        shape: Any = EventKind[kind.upper()].details
        assert shape.__required_keys__ <= details.keys() <= shape.__required_keys__ | shape.__optional_keys__, kind
