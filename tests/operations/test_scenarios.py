"""Golden transcripts: what the monitor concludes and whom it tells, line by line. See
tests/support/transcript.py for their
language."""

import os
from pathlib import Path

import psycopg
import pytest

from skyctl.operations.shared.context import Context
from tests.support.helpers import add_user
from tests.support.transcript import replay

TRANSCRIPTS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda path: path.stem)
def test_it_goes_as_written(context: Context, connection: psycopg.Connection, transcript: Path) -> None:
    """With UPDATE_DOCUMENTS=1 the transcripts are written anew. Each alert is told every administrator once."""
    for _ in range(2):
        add_user(connection)
    add_user(connection, "user")
    written = transcript.read_text()
    played = replay(context, written)
    if os.environ.get("UPDATE_DOCUMENTS"):
        transcript.write_text(played)
    assert played == transcript.read_text()
    told = connection.execute(
        "SELECT count(*), count(DISTINCT (user_id, metadata->'alertId')) FROM notifications"
    ).fetchone()
    alerts = connection.execute("SELECT count(*) FROM worker_alerts").fetchone()
    assert alerts
    assert told == (2 * alerts[0], 2 * alerts[0])
