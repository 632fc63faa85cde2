"""From the model to what is printed: tables, bars and words. No I/O."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from skyctl.domain.cluster import (
    Alert,
    Capacity,
    Check,
    CheckState,
    ClusterStats,
    Event,
    HealthPolicy,
    Load,
    Worker,
    WorkerPage,
    WorkerStatus,
)
from skyctl.domain.text import printable
from skyctl.domain.workloads import DrainProgress

BAR_CELLS = 10
FIGURE_CELLS = 4
WIDE_HEADINGS = (
    "ID",
    "HOSTNAME",
    "ADDRESS",
    "CORES",
    "MEMORY",
    "DISK",
    "SWARM NODE",
    "AGENT",
    "DRAIN",
    "FLAPPING SINCE",
)
COLORS = {
    WorkerStatus.ACTIVE: "green",
    WorkerStatus.PENDING: "cyan",
    WorkerStatus.UNHEALTHY: "yellow",
    WorkerStatus.DRAINING: "magenta",
    WorkerStatus.OFFLINE: "red",
}
CHECK_COLORS = {CheckState.OK: "green", CheckState.WARNING: "yellow", CheckState.FAILED: "red"}


def worker_table(page: WorkerPage, *, wide: bool) -> list[Any]:
    """The workers of a page, and how many there are."""
    headings = ["NAME", "STATUS", "CPU", "MEMORY", "DISK", "CONTAINERS", "HEARTBEAT"]
    table = plain_table(*headings, *(WIDE_HEADINGS if wide else ()), bars=(2, 3, 4))
    for worker in page.workers:
        cells: list[Any] = [printable(worker.name), standing_text(worker), *load_bars(worker)]
        cells.append(ago(worker.last_heartbeat_at, page.read_at))
        table.add_row(*cells, *(_wide_cells(worker, page.read_at) if wide else ()))
    found = counted("worker", len(page.workers), page.total, page.offset)
    return [table, Text(found, style="dim")] if page.workers else [Text(found)]


def worker_details(worker: Worker, now: datetime, drain: DrainProgress | None = None) -> list[Any]:
    """Everything about one worker, and how far its drain is."""
    table = plain_table("", "", heading=False)
    heard = worker.last_heartbeat_at
    rows: list[tuple[str, Any]] = [
        ("Name", worker.name),
        ("ID", str(worker.id)),
        ("Status", standing_text(worker)),
        *([("Token revoked", revocation(worker, now))] if worker.token_revoked_at else []),
        ("Status since", ago(worker.status_changed_at, now)),
        ("Hostname", worker.hostname or "-"),
        ("Address", _address(worker)),
        ("Swarm node", worker.swarm_node_id or "-"),
        ("Heartbeat", f"{ago(heard, now)} ({heard.isoformat(timespec='seconds')})" if heard else "never"),
        ("Capacity", capacity_text(worker.capacity)),
        *zip(("CPU", "Memory", "Disk", "Containers"), load_bars(worker), strict=True),
        ("Drain asked", ago(worker.drain_requested_at, now)),
        ("Drain reason", worker.drain_reason or "-"),
        *([("Drain so far", drain_text(drain, now))] if drain and worker.drain_requested_at else []),
        ("Flapping since", ago(worker.flapping_since, now)),
        ("Invited", ago(worker.created_at, now)),
    ]
    rows += [("Agent upgrade", upgrade_text(worker, now))] if upgrade_text(worker, now) else []
    rows += [(key, str(value)) for key, value in sorted(worker.metadata.items()) if key != "agentUpgradeFailed"]
    for name, value in rows:
        table.add_row(Text(printable(name), style="bold"), Text(printable(value)) if isinstance(value, str) else value)
    return [table]


def upgrade_text(worker: Worker, now: datetime) -> str:
    """What is offered to a worker's agent, or what it last gave up; empty where neither is."""
    if worker.agent_offered:
        return f"{worker.agent_offered[:12]} offered {ago(worker.agent_offered_at, now)}"
    failed = worker.metadata.get("agentUpgradeFailed")
    if not isinstance(failed, dict):
        return ""
    return f"{str(failed.get('sha256'))[:12]} given up: {failed.get('reason')}"


def standing_text(worker: Worker) -> Text:
    """A worker's status, and beside it that its token is revoked."""
    status = status_text(worker.status)
    return Text.assemble(status, (" revoked", "bold red")) if worker.token_revoked_at else status


def revocation(worker: Worker, now: datetime) -> str:
    """Since when a worker's token is revoked, and why."""
    why = f": {worker.token_revoked_reason}" if worker.token_revoked_reason else ""
    return f"{ago(worker.token_revoked_at, now)}{why}"


def drain_text(drain: DrainProgress, now: datetime) -> str:
    """How far a drain is, in words."""
    counts = ((drain.under_way, "under way"), (drain.waiting, "waiting"), (len(drain.left), "left"))
    said = ", ".join([f"{drain.moved} of {drain.total} moved", *(f"{count} {what}" for count, what in counts if count)])
    over, deadline = drain.worker.drain_finished_at, drain.worker.drain_deadline_at
    if over:
        return f"over {ago(over, now)}: {said}" if drain.left else f"empty {ago(over, now)}: {said}"
    if deadline is None:
        return said
    return f"{said}; deadline {f'in {ahead(deadline, now)}' if deadline > now else f'passed {ago(deadline, now)}'}"


def stats_tables(stats: ClusterStats) -> list[Any]:
    """The cluster in figures: workers by status, capacity and load, with bars."""
    statuses = plain_table("STATUS", "WORKERS", "")
    for status in WorkerStatus:
        count = stats.by_status.get(status, 0)
        share = 100 * count / stats.total if stats.total else 0
        statuses.add_row(status_text(status), str(count), Text(blocks(share), style=COLORS[status]))
    statuses.add_row(Text("total", style="bold"), Text(str(stats.total), style="bold"), "")
    loads = plain_table("RESOURCE", "CAPACITY", "LOAD, BY CAPACITY", "LOAD, PLAIN MEAN", bars=(2, 3))
    figures = zip(
        ("cpu", "memory", "disk"), capacities(stats.capacity), _bars(stats.load), _bars(stats.plain_load), strict=True
    )
    for name, capacity, weighted, plain in figures:
        loads.add_row(name, capacity, weighted, plain)
    loads.add_row("containers", str(stats.load.container_count), "", "")
    note = Text(
        "Capacity, load and containers of the workers that are heard from: active, unhealthy, draining.", style="dim"
    )
    return [Group(statuses, Text(""), loads, note)]


def schema_table(version: int | None, expected: int, missing: Sequence[str]) -> list[Any]:
    """What a database has of the schema."""
    table = plain_table("SCHEMA", "", heading=False)
    table.add_row("Applied version", "none" if version is None else str(version))
    table.add_row("Expected version", str(expected))
    table.add_row("Missing", ", ".join(missing) or "nothing")
    return [table]


def event_line(event: Event) -> Text:
    """An event in one line."""
    change = Text()
    if event.to_status:
        before = Text.assemble(status_text(event.from_status), " to ") if event.from_status else Text()
        change = Text.assemble(" ", before, status_text(event.to_status))
    who = f" {printable(event.worker_name)}" if event.worker_name else ""
    reason = f": {printable(event.reason)}" if event.reason else ""
    by = f" ({printable(event.actor)}" + (f", term {event.term})" if event.term else ")")
    return Text.assemble(
        (f"{event.seq:>6} {_stamp(event.at)} ", "dim"), (event.kind, "bold"), who, change, reason, (by, "dim")
    )


def alert_line(alert: Alert) -> Text:
    """An alert in one line."""
    return Text.assemble(
        (f"{alert.id:>6} {_stamp(alert.at)} ", "dim"), (f"{alert.kind} ", "bold"), printable(alert.message)
    )


def alert_table(alerts: Sequence[tuple[Alert, int, int, int]], now: datetime) -> list[Any]:
    """Alerts, each with how many channels took it, have it waiting, or will not get it."""
    if not alerts:
        return [Text("No alerts.")]
    table = plain_table("ID", "RAISED", "ALERT", "CHANNELS", "MESSAGE", bars=(4,))
    for alert, made, waiting, given_up in alerts:
        counts = ((made, "delivered", "green"), (waiting, "waiting", "yellow"), (given_up, "given up", "red"))
        told = Text(", ").join(Text(f"{count} {what}", style=color) for count, what, color in counts if count)
        table.add_row(str(alert.id), ago(alert.at, now), alert.kind, told or "-", printable(alert.message))
    return [table]


def channel_table(results: Mapping[str, str]) -> list[Any]:
    """What became of a test by each channel."""
    table = plain_table("CHANNEL", "RESULT")
    for channel, trouble in results.items():
        table.add_row(channel, Text(trouble, style="red") if trouble else Text("delivered", style="green"))
    return [table]


def check_table(checks: Sequence[Check]) -> list[Any]:
    """What the doctor found, one line a check; under what is not well, what to do about it, once where several need the
    same."""
    table = plain_table("", "CHECK", "FOUND")
    table.columns[-1].no_wrap = False
    for check, following in zip(checks, [*checks[1:], None], strict=True):
        found = Text(printable(check.found))
        if check.remedy and not (following and following.remedy == check.remedy):
            found.append(f"\n→ {printable(check.remedy)}", style="bold")
        table.add_row(Text(check.state.value, style=CHECK_COLORS[check.state]), check.name, found)
    states = [check.state for check in checks]
    failed, warnings = states.count(CheckState.FAILED), states.count(CheckState.WARNING)
    summary = f"{failed} failed, {warnings} warning{'s' * (warnings != 1)}" if failed or warnings else "All is well."
    return [table, Text(f"\n{summary}", style="bold")]


def status_text(status: WorkerStatus) -> Text:
    """A status in its colour."""
    return Text(status.value, style=COLORS[status])


def blocks(percent: float, cells: int = BAR_CELLS) -> str:
    """A percentage as a bar of so many cells."""
    filled = min(cells, round(percent / 100 * cells))
    return "█" * filled + "░" * (cells - filled)


def load_style(percent: float, limit: float) -> str:
    """The colour of a load: red above its limit, yellow near it."""
    return "red" if percent > limit else "yellow" if percent > 0.8 * limit else "green"


class Bar:
    """A percentage as a bar that gives way to narrow terminals, and a figure that does not."""

    def __init__(self, percent: float, limit: float) -> None:
        self._percent = percent
        self._style = load_style(percent, limit)

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(FIGURE_CELLS, min(FIGURE_CELLS + 1 + BAR_CELLS, options.max_width))

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        cells = min(BAR_CELLS, options.max_width - FIGURE_CELLS - 1)
        bar = blocks(self._percent, cells) + " " if cells > 0 else ""
        yield Text.assemble((bar, self._style), f"{self._percent:3.0f}%")


def load_bars(worker: Worker, policy: HealthPolicy = HealthPolicy()) -> list[Bar | Text]:
    """CPU, memory and disk as bars, and the number of containers; dashes for a worker that never reported."""
    if worker.last_heartbeat_at is None:
        return [Text("-")] * 4
    return [*_bars(worker.load, policy), Text(str(worker.load.container_count))]


def capacity_text(capacity: Capacity) -> str:
    """A capacity in words."""
    cores, memory, disk = capacities(capacity)
    return f"{cores}, {memory} memory, {disk} disk"


def capacities(capacity: Capacity) -> tuple[str, str, str]:
    """How much there is of CPU, memory and disk."""
    cores = _number(capacity.cpu_cores)
    return f"{cores} core{'s' * (cores != '1')}", _size(capacity.memory_mb), _size(1024 * capacity.disk_gb)


def ago(at: datetime | None, now: datetime) -> str:
    """How long ago, in its largest unit: `12s ago`; `-` for never."""
    return "-" if at is None else f"{span(now - at)} ago"


def ahead(at: datetime, now: datetime) -> str:
    """How long until then, to the minute: `12s`, `1h 59m`."""
    seconds = max(0, math.ceil((at - now) / timedelta(seconds=1)))
    if seconds < 60:
        return f"{seconds}s"
    days, hours, minutes = seconds // 86_400, seconds // 3600 % 24, seconds // 60 % 60
    return " ".join(f"{count}{unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "m")) if count)


def span(length: timedelta) -> str:
    """A length of time in its largest unit: `12s`."""
    seconds = max(0, int(length / timedelta(seconds=1)))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def monitor_footnote(page: WorkerPage, interval: timedelta) -> str:
    """What to know of the statuses when no monitor has looked lately; empty when one has."""
    if page.monitor_seen_at is None:
        return "note: no monitor has run yet, so statuses do not change. Run `skyctl monitor`."
    if page.read_at - page.monitor_seen_at > 3 * interval:
        seen = ago(page.monitor_seen_at, page.read_at)
        return f"note: the last monitor pass was {seen}, so statuses may be old. Run `skyctl monitor`."
    return ""


def _stamp(at: datetime | None) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z") if at else "-"


def _wide_cells(worker: Worker, now: datetime) -> list[str]:
    have = worker.capacity
    sizes = (
        [_number(have.cpu_cores), _size(have.memory_mb), _size(1024 * have.disk_gb)] if worker.hostname else ["-"] * 3
    )
    agent = str(worker.metadata.get("agentVersion", "-"))
    hostname, node = printable(worker.hostname) or "-", printable(worker.swarm_node_id or "-")
    drain = printable(worker.drain_reason or "asked") if worker.drain_requested_at else "-"
    flapping = ago(worker.flapping_since, now)
    return [str(worker.id), hostname, _address(worker), *sizes, node, printable(agent), drain, flapping]


def _address(worker: Worker) -> str:
    return worker.ip_address if worker.hostname else "-"


def counted(noun: str, shown: int, total: int, offset: int) -> str:
    """How many there are, which of them are shown, and how to see more."""
    if not shown:
        return f"No {noun}s." if total == 0 else f"No {noun}s at --offset {offset}; there are {total}."
    if shown == total:
        return f"{total} {noun}{'s' * (total != 1)}"
    last = offset + shown
    more = f"; more: --offset {last}" if last < total else ""
    return f"{offset + 1} to {last} of {total} {noun}s{more}"


def _bars(load: Load, policy: HealthPolicy = HealthPolicy()) -> list[Bar]:
    return [
        Bar(load.cpu_percent, policy.cpu_percent),
        Bar(load.memory_percent, policy.memory_percent),
        Bar(load.disk_percent, policy.disk_percent),
    ]


def _number(value: float) -> str:
    return f"{value:g}"


def _size(mebibytes: float) -> str:
    """Mebibytes in the largest unit that fits."""
    value, units = float(mebibytes), ["MiB", "GiB", "TiB", "PiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if value >= 100 else f"{value:.1f} {units[0]}"


def plain_table(*headings: str, heading: bool = True, bars: Sequence[int] = ()) -> Table:
    """A table without lines; the columns of these numbers give way first where the terminal is narrow."""
    table = Table(box=None, pad_edge=False, show_header=heading, header_style="bold")
    for number, name in enumerate(headings):
        table.add_column(Text(name, no_wrap=True, overflow="ellipsis"), no_wrap=number not in bars)
    return table
