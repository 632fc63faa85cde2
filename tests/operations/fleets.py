"""A fleet with an engine in memory, for whoever needs one."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from skyctl.domain.engine import SwarmJoin
from tests.conftest import make_context
from tests.support.fakes import FakeEngine
from tests.support.fleet import Fleet


@contextmanager
def fleet_of(database_url: str, connection: psycopg.Connection, *names: str) -> Iterator[Fleet]:
    """Workers that are active and empty, each with its node."""
    engine = FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))
    context = make_context(database_url, engine=engine)
    fleet = Fleet(context, connection, engine)
    fleet.add(*names)
    yield fleet
    context.db.close()
