"""Workers and the cluster as they are printed: tables and details. No I/O."""

from datetime import datetime, timedelta
from typing import Any

from rich.console import Group
from rich.text import Text

from skyctl.cli.views import formats
from skyctl.domain.cluster import ClusterStats, HealthPolicy, Worker, WorkerPage
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import printable
from skyctl.domain.workloads import DrainProgress

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


def worker_table(page: WorkerPage, *, wide: bool) -> list[Any]:
    """The workers of a page, and how many there are."""
    headings = ["NAME", "STATUS", "CPU", "MEMORY", "DISK", "CONTAINERS", "HEARTBEAT"]
    table = formats.plain_table(*headings, *(WIDE_HEADINGS if wide else ()), bars=(2, 3, 4))
    for worker in page.workers:
        cells: list[Any] = [printable(worker.name), standing_text(worker), *load_bars(worker)]
        cells.append(formats.ago(worker.last_heartbeat_at, page.read_at))
        table.add_row(*cells, *(_wide_cells(worker, page.read_at) if wide else ()))
    total = formats.counted("worker", len(page.workers), page.total, page.offset)
    return [table, Text(total, style="dim")] if page.workers else [Text(total)]


def worker_details(worker: Worker, now: datetime, drain: DrainProgress | None = None, occupants: str = "") -> list[Any]:
    """Everything about one worker, how far its drain is, and what runs there in words."""
    table = formats.plain_table("", "", heading=False)
    heard = worker.last_heartbeat_at
    rows: list[tuple[str, Any]] = [
        ("Name", worker.name),
        ("ID", str(worker.id)),
        ("Status", standing_text(worker)),
        *([("Token revoked", revocation(worker, now))] if worker.token_revoked_at else []),
        ("Status since", formats.ago(worker.status_changed_at, now)),
        ("Hostname", worker.hostname or "-"),
        ("Address", _address(worker)),
        ("Swarm node", node_text(worker)),
        ("Engine", engine_text(worker, now)),
        ("Heartbeat", f"{formats.ago(heard, now)} ({heard.isoformat(timespec='seconds')})" if heard else "never"),
        ("Capacity", formats.capacity_text(worker.capacity)),
        *zip(("CPU", "Memory", "Disk", "Containers"), load_bars(worker), strict=True),
        *([("Runs", occupants)] if occupants else []),
        *([("CPU lately", recent_text(worker))] if worker.recent_cpu else []),
        ("Drain asked", formats.ago(worker.drain_requested_at, now)),
        ("Drain reason", worker.drain_reason or "-"),
        *([("Drain so far", drain_text(drain, now))] if drain and worker.drain_requested_at else []),
        ("Flapping since", formats.ago(worker.flapping_since, now)),
        ("Invited", formats.ago(worker.created_at, now)),
    ]
    rows += [("Agent upgrade", upgrade_text(worker, now))] if upgrade_text(worker, now) else []
    rows += [(key, str(value)) for key, value in sorted(worker.metadata.items()) if key != "agentUpgradeFailed"]
    for name, value in rows:
        table.add_row(Text(printable(name), style="bold"), Text(printable(value)) if isinstance(value, str) else value)
    return [table]


def upgrade_text(worker: Worker, now: datetime) -> str:
    """The agent that is offered to a worker, or the one that it last gave up; empty where neither is."""
    if worker.agent_offered:
        return f"{worker.agent_offered[:12]} offered {formats.ago(worker.agent_offered_at, now)}"
    failed = worker.metadata.get("agentUpgradeFailed")
    if not isinstance(failed, dict):
        return ""
    return f"{str(failed.get('sha256'))[:12]} given up: {failed.get('reason')}"


def standing_text(worker: Worker) -> Text:
    """A worker's status, and beside it that its token is revoked, and that its swarm node is not confirmed."""
    return Text.assemble(
        formats.status_text(worker.status),
        (" revoked", "bold red") if worker.token_revoked_at else "",
        (" node not confirmed", "yellow") if worker.swarm_node_trouble else "",
    )


def node_text(worker: Worker) -> str:
    """The swarm node of a worker, or the one that it claims and why that does not count; a dash for none."""
    claim = worker.swarm_node_id or worker.swarm_node_claim
    if claim is None or worker.confirmed_node:
        return worker.confirmed_node or "-"
    return f"{claim}, not confirmed: {worker.swarm_node_trouble or 'no monitor has looked yet'}"


def engine_text(worker: Worker, now: datetime) -> str:
    """Return whether a worker's engine is there, by its agent and by the swarm, and since when it counts as failed."""
    failed = f"; failed {formats.ago(worker.engine_failed_at, now)}" if worker.engine_failed_at else ""
    if worker.engine_away_since:
        said = f": {worker.engine_trouble}" if worker.engine_trouble else ""
        return f"has not answered its agent since {formats.ago(worker.engine_away_since, now)}{said}{failed}"
    if worker.node_down_since:
        is_node = worker.swarm_node_id or worker.swarm_node_claim
        what = "the swarm says that its node is down" if is_node else "has left the swarm"
        return f"{what}, since {formats.ago(worker.node_down_since, now)}{failed}"
    if worker.metadata.get("engine") == "podman":
        return "Podman, which cannot be in a swarm"
    return "answers" if worker.metadata.get("dockerVersion") else "not known"


def recent_text(worker: Worker) -> str:
    """Return the CPU of a worker's last heartbeats as a line, and their average."""
    recent = worker.recent_cpu
    beats = f"{len(recent)} heartbeat{'s' * (len(recent) != 1)}"
    return f"{formats.sparkline(reversed(recent))} {sum(recent) / len(recent):.0f}% on average of {beats}"


def revocation(worker: Worker, now: datetime) -> str:
    """Return since when a worker's token is revoked, and why."""
    why = f": {worker.token_revoked_reason}" if worker.token_revoked_reason else ""
    return f"{formats.ago(worker.token_revoked_at, now)}{why}"


def drain_text(drain: DrainProgress, now: datetime) -> str:
    """Return how far a drain is, in words."""
    figures = formats.drain_counts(drain)
    over, deadline = drain.worker.drain_finished_at, drain.worker.drain_deadline_at
    if over:
        others = f"; not ours, and still there: {', '.join(drain.others)}" if drain.others else ""
        others += f"; what else runs there nobody can say: {drain.unknown}" if drain.unknown else ""
        return f"{'empty' if drain.is_empty else 'over'} {formats.ago(over, now)}: {figures}{others}"
    if deadline is None:
        return figures
    when = f"in {formats.ahead(deadline, now)}" if deadline > now else f"passed {formats.ago(deadline, now)}"
    return f"{figures}; deadline {when}"


def stats_tables(stats: ClusterStats) -> list[Any]:
    """The cluster in figures: workers by status, capacity and load, with bars."""
    statuses = formats.plain_table("STATUS", "WORKERS", "")
    for status in WorkerStatus:
        count = stats.by_status.get(status, 0)
        share = 100 * count / stats.total if stats.total else 0
        statuses.add_row(
            formats.status_text(status), str(count), Text(formats.blocks(share), style=formats.COLORS[status])
        )
    statuses.add_row(Text("total", style="bold"), Text(str(stats.total), style="bold"), "")
    loads = formats.plain_table("RESOURCE", "CAPACITY", "LOAD, BY CAPACITY", "LOAD, PLAIN MEAN", bars=(2, 3))
    figures = zip(
        ("cpu", "memory", "disk"),
        formats.capacities(stats.capacity),
        formats.bars(stats.load),
        formats.bars(stats.plain_load),
        strict=True,
    )
    for name, capacity, weighted, plain in figures:
        loads.add_row(name, capacity, weighted, plain)
    loads.add_row("containers", str(stats.load.container_count), "", "")
    note = Text(
        "Capacity, load and containers of the workers that are heard from: active, unhealthy, draining.", style="dim"
    )
    return [Group(statuses, Text(""), loads, note)]


def load_bars(worker: Worker, policy: HealthPolicy = HealthPolicy()) -> list[formats.Bar | Text]:
    """CPU, memory and disk as bars, and the number of containers; dashes for a worker that never reported."""
    if worker.last_heartbeat_at is None:
        return [Text("-")] * 4
    count = "unknown" if worker.container_count is None else str(worker.container_count)
    return [*formats.bars(worker.load, policy), Text(count)]


def monitor_footnote(page: WorkerPage, interval: timedelta, consequence: str = "statuses do not change") -> str:
    """Return a note on what does not happen when no monitor has run lately; empty when one has.

    `consequence` is what it means, where no monitor has ever run, for the command that shows the note.
    """
    if page.monitor_seen_at is None:
        return f"note: no monitor has run yet, so {consequence}. Run `skyctl monitor`."
    if page.read_at - page.monitor_seen_at > 3 * interval:
        last = formats.ago(page.monitor_seen_at, page.read_at)
        return f"note: the last monitor pass was {last}, so statuses may be old. Run `skyctl monitor`."
    return ""


def _wide_cells(worker: Worker, now: datetime) -> list[str]:
    have = worker.capacity
    cores, memory, disk = (
        formats.number(have.cpu_cores),
        formats.size(have.memory_mb),
        formats.size(1024 * have.disk_gb),
    )
    sizes = [cores, memory, disk] if worker.hostname else ["-"] * 3
    agent = str(worker.metadata.get("agentVersion", "-"))
    hostname, node = printable(worker.hostname) or "-", printable(worker.confirmed_node or "-")
    drain = printable(worker.drain_reason or "asked") if worker.drain_requested_at else "-"
    flapping = formats.ago(worker.flapping_since, now)
    return [str(worker.id), hostname, _address(worker), *sizes, node, printable(agent), drain, flapping]


def _address(worker: Worker) -> str:
    return worker.ip_address if worker.hostname else "-"
