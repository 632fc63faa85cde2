"""What the doctor says of retention: how much is kept, since when, and whether what is over is removed in time."""

from datetime import datetime, timedelta

from skyctl.domain.checks import Check, CheckState
from skyctl.domain.retention import FOR_EVER, KeptRows, RetentionPolicy
from skyctl.store import db, retention

LATE = timedelta(days=1)


def examine(tx: db.Transaction, policy: RetentionPolicy) -> Check:
    """Check that rows which are kept long enough are removed; those that must stay longer do not count."""
    now = db.now(tx)
    kept = [retention.kept(tx, kind, policy) for kind in retention.KINDS]
    late = [rows.name for rows in kept if _is_late(rows, now)]
    found = "; ".join(_described(rows) for rows in kept)
    if late:
        behind = f"{', '.join(late)}: older rows than are to be kept are not removed; {found}"
        remedy = "see that `skyctl monitor` leads, and its log for `prune_refused`; it removes some at each pass"
        return Check("retention", CheckState.WARNING, behind, remedy)
    return Check("retention", CheckState.OK, found)


def _is_late(rows: KeptRows, now: datetime) -> bool:
    if rows.kept_for == FOR_EVER or rows.oldest_at is None or now - rows.oldest_at <= rows.kept_for + LATE:
        return False
    return rows.swept_at is None or now - rows.swept_at > LATE


def _described(rows: KeptRows) -> str:
    number = f"{'about ' if rows.about else ''}{rows.number:,}"
    since = f" since {rows.oldest_at:%Y-%m-%d}" if rows.oldest_at else ""
    kept = "for ever" if rows.kept_for == FOR_EVER else f"{rows.kept_for.days} d"
    return f"{rows.name} {number}{since} ({kept})"
