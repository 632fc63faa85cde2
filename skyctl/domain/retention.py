"""Retention: for how long what is over is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

FOR_EVER = timedelta()


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """For how long rows are kept once they are over; FOR_EVER: they are never removed.

    `events`: the log, and install links. `history`: alerts, notifications, migrations, deployments; of each service the
    newest `deployments` stay, however old. `activity`: what administrators and alerts did in the activity log.
    """

    events: timedelta = timedelta(days=90)
    history: timedelta = timedelta(days=180)
    activity: timedelta = timedelta(days=365)
    deployments: int = 10


class KeptRows(NamedTuple):
    """The rows of one kind: their number, by estimate where `about`; the time of the oldest that may be removed; when
    all of them were looked at last."""

    name: str
    kept_for: timedelta
    number: int
    about: bool
    oldest_at: datetime | None
    swept_at: datetime | None


@dataclass(frozen=True, slots=True)
class Pruned:
    """The numbers of rows that were removed, by kind, and those kinds of which the database refused to remove any; is
    there more to look at?"""

    removed: Sequence[tuple[str, int]] = ()
    refused: Sequence[tuple[str, str]] = ()
    is_more: bool = False
