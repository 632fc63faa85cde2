"""Workers and the cluster as they are printed: tables and details. No I/O."""

from typing import Any

from rich.console import Group
from rich.text import Text

from skyctl.cli.views import formats, swarm
from skyctl.documents.http import Document
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import printable

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
    "RUNS",
)


def worker_table(page: Document, offset: int = 0, *, wide: bool = False) -> list[Any]:
    """The workers of a page, and how many there are; `wide` with all about them, and what runs on each where the
    document says it."""
    workers, now = page["workers"], page["readAt"]
    headings = ["NAME", "STATUS", "CPU", "MEMORY", "DISK", "CONTAINERS", "HEARTBEAT"]
    table = formats.plain_table(*headings, *(WIDE_HEADINGS if wide else ()), bars=(2, 3, 4), wide=wide)
    for worker in workers:
        cells: list[Any] = [printable(worker["name"]), standing_text(worker), *load_bars(worker, page["limits"])]
        cells.append(formats.ago(worker["lastHeartbeatAt"], now))
        table.add_row(*cells, *(_wide_cells(worker, now) if wide else ()))
    total = formats.counted("worker", len(workers), page["total"], offset)
    return [table, Text(total, style="dim")] if workers else [Text(total)]


def worker_details(worker: Document) -> list[Any]:
    """Everything about one worker, how far its drain is, and what runs there where the document says it."""
    heard, now, metadata = worker["lastHeartbeatAt"], worker["readAt"], worker["metadata"]
    rows: list[tuple[str, Any]] = [
        ("Name", worker["name"]),
        ("ID", worker["id"]),
        ("Status", standing_text(worker)),
        *([("Token revoked", revocation(worker, now))] if worker["tokenRevokedAt"] else []),
        ("Status since", formats.ago(worker["statusChangedAt"], now)),
        ("Hostname", worker["hostname"] or "-"),
        ("Address", _address(worker)),
        ("Swarm node", node_text(worker)),
        ("Engine", engine_text(worker, now)),
        ("Heartbeat", f"{formats.ago(heard, now)} ({formats.stamp(heard)})" if heard else "never"),
        ("Capacity", formats.capacity_text(worker["capacity"])),
        *zip(("CPU", "Memory", "Disk", "Containers"), load_bars(worker, worker["limits"]), strict=True),
        *([("Runs", swarm.runs_text(worker["runs"]))] if "runs" in worker else []),
        *([("CPU lately", recent_text(worker))] if worker["recentCpuPercent"] else []),
        ("Drain asked", formats.ago(worker["drainRequestedAt"], now)),
        ("Drain reason", worker["drainReason"] or "-"),
        *([("Drain so far", drain_text(worker["drain"], now))] if worker["drain"] else []),
        *([("Cordoned", cordon_text(worker, now))] if worker["cordonedAt"] else []),
        *([("Alerts", silence)] if (silence := silence_text(worker, now)) else []),
        ("Flapping since", formats.ago(worker["flappingSince"], now)),
        ("Invited", formats.ago(worker["createdAt"], now)),
    ]
    rows += [("Agent upgrade", upgrade_text(worker, now))] if upgrade_text(worker, now) else []
    rows += [(key, str(value)) for key, value in sorted(metadata.items()) if key != "agentUpgradeFailed"]
    return [formats.details(rows)]


def upgrade_text(worker: Document, now: str) -> str:
    """The agent that is offered to a worker, or the one that it last gave up; empty where neither is."""
    if worker["agentOffered"]:
        return f"{worker['agentOffered'][:12]} offered {formats.ago(worker['agentOfferedAt'], now)}"
    failed = worker["metadata"].get("agentUpgradeFailed")
    if not isinstance(failed, dict):
        return ""
    return f"{str(failed.get('sha256'))[:12]} given up: {failed.get('reason')}"


def standing_text(worker: Document) -> Text:
    """A worker's status, and beside it that its token is revoked, and that its swarm node is not confirmed."""
    return Text.assemble(
        formats.status_text(worker["status"]),
        (" cordoned", "yellow") if worker["cordonedAt"] else "",
        (" revoked", "bold red") if worker["tokenRevokedAt"] else "",
        (" node not confirmed", "yellow") if worker["swarmNodeTrouble"] else "",
    )


def node_text(worker: Document) -> str:
    """The swarm node of a worker, or the one that it claims and why that does not count; a dash for none."""
    claim, confirmed = _claimed_node(worker), _confirmed_node(worker)
    if claim is None or confirmed:
        return confirmed or "-"
    return f"{claim}, not confirmed: {worker['swarmNodeTrouble'] or 'no monitor has looked yet'}"


def engine_text(worker: Document, now: str) -> str:
    """Return whether a worker's engine is there, by its agent and by the swarm, and since when it counts as failed."""
    metadata, away, down = worker["metadata"], worker["engineAwaySince"], worker["nodeDownSince"]
    failed = f"; failed {formats.ago(worker['engineFailedAt'], now)}" if worker["engineFailedAt"] else ""
    if away:
        said = f": {trouble}" if (trouble := metadata.get("engineTrouble", "")) else ""
        return f"has not answered its agent since {formats.ago(away, now)}{said}{failed}"
    if down:
        what = "the swarm says that its node is down" if _claimed_node(worker) else "has left the swarm"
        return f"{what}, since {formats.ago(down, now)}{failed}"
    if metadata.get("engine") == "podman":
        return "Podman, which cannot be in a swarm"
    return "answers" if metadata.get("dockerVersion") else "not known"


def recent_text(worker: Document) -> str:
    """Return the CPU of a worker's last heartbeats as a line, and their average."""
    recent = worker["recentCpuPercent"]
    beats = f"{len(recent)} heartbeat{'s' * (len(recent) != 1)}"
    return f"{formats.sparkline(reversed(recent))} {sum(recent) / len(recent):.0f}% on average of {beats}"


def revocation(worker: Document, now: str) -> str:
    """Return since when a worker's token is revoked, and why."""
    why = f": {worker['tokenRevokedReason']}" if worker["tokenRevokedReason"] else ""
    return f"{formats.ago(worker['tokenRevokedAt'], now)}{why}"


def cordon_text(worker: Document, now: str) -> str:
    """Return since when a worker takes nothing new, and why."""
    why = f": {worker['cordonReason']}" if worker["cordonReason"] else ""
    return f"{formats.ago(worker['cordonedAt'], now)}{why}"


def silence_text(worker: Document, now: str) -> str:
    """Return until when alerts of a worker are held back from the channels, and why; empty where they are not."""
    until = worker["alertsSilencedUntil"]
    if until is None or formats.has_come(until, now):
        return ""
    why = f": {worker['alertsSilencedReason']}" if worker["alertsSilencedReason"] else ""
    return f"silenced until {formats.stamp(until)}{why}"


def drain_text(drain: Document, now: str) -> str:
    """Return how far a drain is, in words."""
    figures = formats.drain_counts(drain)
    over, deadline = drain["finishedAt"], drain["deadlineAt"]
    if over:
        others = f"; not ours, and still there: {', '.join(drain['others'])}" if drain["others"] else ""
        others += f"; what else runs there nobody can say: {drain['unknown']}" if drain["unknown"] else ""
        return f"{'empty' if drain['empty'] else 'over'} {formats.ago(over, now)}: {figures}{others}"
    if deadline is None:
        return figures
    is_past = formats.has_come(deadline, now)
    when = f"passed {formats.ago(deadline, now)}" if is_past else f"in {formats.ahead(deadline, now)}"
    return f"{figures}; deadline {when}"


def stats_tables(stats: Document) -> list[Any]:
    """The cluster in figures: workers by status, capacity and load, with bars."""
    statuses = formats.plain_table("STATUS", "WORKERS", "")
    total = stats["totalWorkers"]
    for status in WorkerStatus:
        count = stats[f"{status}Workers"]
        share = 100 * count / total if total else 0
        bar = Text(formats.blocks(share), style=formats.COLORS[status])
        statuses.add_row(formats.status_text(status), str(count), bar)
    statuses.add_row(Text("total", style="bold"), Text(str(total), style="bold"), "")
    loads = formats.plain_table("RESOURCE", "CAPACITY", "LOAD, BY CAPACITY", "LOAD, PLAIN MEAN", bars=(2, 3))
    figures = zip(
        ("cpu", "memory", "disk"),
        formats.capacities(stats["totalCapacity"]),
        formats.bars(stats["totalLoad"], stats["limits"]),
        formats.bars(stats["averageLoad"], stats["limits"]),
        strict=True,
    )
    for name, capacity, weighted, plain in figures:
        loads.add_row(name, capacity, weighted, plain)
    loads.add_row("containers", str(stats["totalContainers"]), "", "")
    note = Text(
        "Capacity, load and containers of the workers that are heard from: active, unhealthy, draining.", style="dim"
    )
    return [Group(statuses, Text(""), loads, note)]


def load_bars(worker: Document, limits: Document) -> list[formats.Bar | Text]:
    """CPU, memory and disk as bars, and the number of containers; dashes for a worker that never reported."""
    if worker["lastHeartbeatAt"] is None:
        return [Text("-")] * 4
    load = worker["currentLoad"]
    count = "unknown" if load["containerCount"] is None else str(load["containerCount"])
    return [*formats.bars(load, limits), Text(count)]


def monitor_warning(page: Document, consequence: str) -> str:
    """Return a warning that nobody does what a command has asked for, and what that means; empty where a monitor
    leads."""
    monitor = page["monitor"]
    if monitor["leads"]:
        return ""
    seen = monitor["lastPassAt"]
    lack = "has run yet" if seen is None else f"leads; the last pass was {formats.ago(seen, page['readAt'])}"
    return f"warning: no monitor {lack}: {consequence} until one does. Run `skyctl monitor`."


def monitor_footnote(page: Document) -> str:
    """Return a note on what does not happen when no monitor has run lately; empty when one has."""
    seen = page["monitor"]["lastPassAt"]
    if seen is None:
        return "note: no monitor has run yet, so statuses do not change. Run `skyctl monitor`."
    if page["monitor"]["late"]:
        last = formats.ago(seen, page["readAt"])
        return f"note: the last monitor pass was {last}, so statuses may be old. Run `skyctl monitor`."
    return ""


def _wide_cells(worker: Document, now: str) -> list[str]:
    have, hostname = worker["capacity"], worker["hostname"]
    cores, memory, disk = (
        formats.number(have["cpuCores"]),
        formats.size(have["memoryMb"]),
        formats.size(1024 * have["diskGb"]),
    )
    sizes = [cores, memory, disk] if hostname else ["-"] * 3
    agent = printable(worker["metadata"].get("agentVersion", "-"))
    node = printable(_confirmed_node(worker) or "-")
    drain = printable(worker["drainReason"] or "asked") if worker["drainRequestedAt"] else "-"
    flapping = formats.ago(worker["flappingSince"], now)
    there = printable(swarm.runs_text(worker["runs"])) if "runs" in worker else "-"
    first = [worker["id"], printable(hostname) or "-", _address(worker)]
    return [*first, *sizes, node, agent, drain, flapping, there]


def _claimed_node(worker: Document) -> str | None:
    """The swarm node that is a worker's, or that it says."""
    claim: str | None = worker["swarmNodeId"] or worker["swarmNodeClaim"]
    return claim


def _confirmed_node(worker: Document) -> str | None:
    """The swarm node that the engine shows to be a worker's."""
    node: str | None = worker["swarmNodeId"]
    return node if worker["swarmNodeConfirmedAt"] else None


def _address(worker: Document) -> str:
    return str(worker["ipAddress"]) if worker["hostname"] else "-"
