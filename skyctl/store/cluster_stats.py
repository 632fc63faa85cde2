"""The cluster in figures: all of a small fleet, a sample of a large one."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from skyctl.domain.cluster import Capacity, ClusterStats, Load
from skyctl.domain.states import WorkerStatus
from skyctl.store import counts
from skyctl.store.tables import workers

HEARD_FROM = (WorkerStatus.ACTIVE, WorkerStatus.UNHEALTHY, WorkerStatus.DRAINING)
SUMMED = 20_000  # beyond that, the sums are those of a sample
SAMPLED = 10_000


def stats(connection: sa.Connection) -> ClusterStats:
    """The cluster in figures. The workers are counted; where there are more than SUMMED of them, what they have and
    carry is that of about SAMPLED of them, of pages that are drawn once, for as many as they stand for."""
    by_status = counts.by_status(connection)
    in_all, heard = sum(by_status.values()), sum(by_status.get(status, 0) for status in HEARD_FROM)
    is_sample = in_all > SUMMED
    found = _sums(connection, 100 * SAMPLED / in_all if is_sample else None)
    if is_sample and not found[0]:  # those that are heard from may be few, and on pages of their own
        is_sample, found = False, _sums(connection, None)
    number, *totals = found
    have, containers, percents, weighted = totals[:3], totals[3], totals[4:7], totals[7:]
    scale = heard / number if is_sample else 1.0
    mean = [percent / number if number else 0.0 for percent in percents]
    share = [part / whole if whole else 0.0 for part, whole in zip(weighted, have, strict=True)]
    return ClusterStats(
        by_status=by_status,
        capacity=Capacity(*(scale * figure for figure in have)),
        load=Load._make([*share, round(scale * containers)]),
        plain_load=Load._make([*mean, round(scale * containers)]),
        sampled=int(number) if is_sample else None,
    )


def _sums(connection: sa.Connection, percent: float | None) -> Sequence[float]:
    """Of the workers that are heard from, or of those on so many of all pages: how many, their cores, MB and GB, their
    containers, their loads, and these weighted by what they have."""
    rows = workers if percent is None else workers.tablesample(sa.func.system(percent), seed=sa.literal(1))
    per_worker = sa.select(*(figure.label(name) for name, figure in _figures(rows.c).items()))
    heard = sa.func.coalesce(rows.c.status, WorkerStatus.PENDING.value).in_(HEARD_FROM)
    c = per_worker.where(heard).offset(0).subquery().c  # so that a figure used twice is read from its JSON once
    sums = [*c, c.cpu * c.cores, c.memory * c.memory_mb, c.disk * c.disk_gb]
    summed = (sa.func.coalesce(sa.func.sum(figure), 0.0) for figure in sums)
    return tuple(connection.execute(sa.select(sa.func.count(), *summed)).one())


def _figures(c: Any) -> Mapping[str, sa.ColumnElement[float]]:
    containers = _figure(c.current_load, "containerCount", "container_count")
    return {
        "cores": _figure(c.capacity, "cpuCores", "cpu_cores"),
        "memory_mb": _figure(c.capacity, "memoryMb", "memory_mb"),
        "disk_gb": _figure(c.capacity, "diskGb", "disk_gb"),
        "containers": sa.case((c.engine_away_since.is_(None), containers), else_=0.0),
        "cpu": sa.func.coalesce(c.cpu_percent, 0.0),
        "memory": sa.func.coalesce(c.memory_percent, 0.0),
        "disk": sa.func.coalesce(c.disk_percent, 0.0),
    }


def _figure(document: Any, camel: str, snake: str) -> sa.ColumnElement[float]:
    """A number in a JSON document of ours or of the panel's; 0 where it is missing, no number, or beyond reason."""
    return sa.func.coalesce(sa.func.skyctl_figure(document, camel, snake, type_=sa.Double()), 0.0)
