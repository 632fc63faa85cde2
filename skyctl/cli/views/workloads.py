"""Services, migrations and drains as they are printed: tables and details. No I/O."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from skyctl.cli.views import events, formats, swarm
from skyctl.documents.http import Document
from skyctl.domain.states import MigrationCause, MigrationState
from skyctl.domain.text import printable

REASON_BESIDE = 110  # columns from which a reason stands in the line of what it is about
SHORT_ID = 8
MOST_PLACES = 100
CAUSES: dict[str, str] = {MigrationCause.WORKER_FAILED: "failure", MigrationCause.DRAIN: "drain"}
STATE_COLORS: dict[str, str] = {
    MigrationState.AWAITING_APPROVAL: "magenta",
    MigrationState.HELD: "magenta",
    MigrationState.QUEUED: "cyan",
    MigrationState.STARTING: "cyan",
    MigrationState.VERIFYING: "cyan",
    MigrationState.COMPLETED: "green",
    MigrationState.FAILED: "red",
    MigrationState.CANCELLED: "yellow",
}
STATUS_COLORS = {"running": "green", "down": "red", "failed": "red", "rolled_back": "red", "stopped": "yellow"}


def service_table(page: Document, offset: int, *, wide: bool) -> list[Any]:
    """The services of a page, and how many there are."""
    more = ("ID", "LIMITS", "PORTS", "CONTAINER") if wide else ()
    table = formats.plain_table("NAME", "ORG", "STATUS", "WORKER", "IMAGE", "CHANGED", *more, bars=(4,), wide=wide)
    for service in page["services"]:
        current, replicas = service["deployment"], service["replicas"]
        cells: list[Any] = [
            _plain(service["name"]),
            _plain(service["organization"]),
            _status(service["status"]),
            _worker(current) if replicas == 1 else Text(f"{replicas} containers"),
            _plain(service["image"]),
            formats.ago(service["updatedAt"], page["readAt"]),
        ]
        if wide:
            container = (current["containerId"] or "-")[:12] if current else "-"
            limits, ports = formats.capacity_text(service["limits"]), _plain(", ".join(service["ports"]) or "-")
            cells += [service["id"], limits, ports, _plain(container)]
        table.add_row(*cells)
    return _with_total(table, "service", len(page["services"]), page["total"], offset)


def service_details(service: Document) -> list[Any]:
    """Everything about one service, its deployments and its migrations. Of its variables only the names are shown,
    since the values may be secrets; labels and command where the document tells them."""
    current, past, now = service["deployment"], service["deployments"], service["readAt"]
    error = (past[0]["error"] if past and past[0]["status"] != "running" else "") or (
        current["error"] if current else ""
    )
    of_deployment = current or {"swarmServiceId": None, "containerId": None, "digest": None}
    rows: list[tuple[str, Any]] = [
        ("Name", service["name"]),
        ("ID", service["id"]),
        ("Organization", service["organization"]),
        ("Status", _status(service["status"])),
        *([("Down", _trouble(_down(service)))] if service["downReason"] else []),
        *([("Keeps ending", _trouble(service["endingReason"]))] if service["endingReason"] else []),
        *([("Error", _trouble(error))] if error else []),
        ("Worker", _worker(current)),
        ("Image", service["image"] + (f", pinned to {of_deployment['digest']}" if of_deployment["digest"] else "")),
        ("Replicas", str(service["replicas"])),
        *_in_swarm(service),
        ("Limits", formats.capacity_text(service["limits"])),
        ("Ports", ", ".join(service["ports"]) or "-"),
        ("Endpoint mode", service["endpointMode"]),
        ("Variables", ", ".join(service["variables"]) or "-"),
        *([("Labels", swarm.labels_text(service["labels"]))] if "labels" in service else []),
        *([("Command", " ".join(service["command"]) or "-")] if "command" in service else []),
        ("Placed by", _placed_by(service)),
        ("Engine's id", of_deployment["swarmServiceId"] or "-"),
        ("Container", of_deployment["containerId"] or "-"),
        ("Adopted", "yes: the engine has more of it than is shown here" if service["adopted"] else "no"),
        ("Created", formats.ago(service["createdAt"], now)),
    ]
    parts: list[Any] = [formats.details(rows)]
    if past:
        parts += [Text(), _deployments(past, now)]
    if service["migrations"]:
        parts += [Text(), MigrationTable(service["migrations"], now)]
    return parts


def plan_table(plan: Document) -> list[Any]:
    """The places to which containers would go, each with its reason."""
    planned = plan["containers"]
    if not planned:
        return [Text("No containers.")]
    table = formats.plain_table("SERVICE", "ORG", "FROM", "TO", "HOW", "REASON", bars=(5,))
    for container in planned:
        is_left = container["left"]
        target = _plain(container["target"]) if container["target"] else Text("nowhere", style="red" * is_left)
        several = f" x {container['containers']}" if container["containers"] > 1 else ""
        table.add_row(
            _plain(container["service"] + several),
            _plain(container["organization"] or "-"),
            _plain(container["source"] or "-"),
            target,
            _plain(container["way"]),
            Text(printable(container["reason"]), style="red" * is_left),
        )
    lost = sum(container["containers"] for container in planned if container["left"])
    number = sum(container["containers"] for container in planned)
    total = f"{number} container{'s' * (number != 1)}" + (f", {lost} would be left" if lost else "")
    return [table, Text(total, style="bold red" if lost else "dim")]


def outlook(document: Document) -> list[Any]:
    """Where a service could go, and what keeps it from each other worker."""
    places, workers, may = document["places"][:MOST_PLACES], document["workers"], document["eligible"]
    table = formats.plain_table("WORKER", "LOAD WITH IT", "WHY", bars=(2,))
    for number, place in enumerate(places):
        load = "-" if place["loadPercent"] is None else f"{place['loadPercent']:.0f} %"
        table.add_row(_plain(place["workerName"]), load, _prospect(place, is_best=number == 0))
    of_swarm = f"{document['replicas']} containers, which the swarm places; "
    where = of_swarm if document["replicas"] > 1 else f"on {printable(document['workerName'] or 'no worker')}; "
    total = f"{where}{may} of {workers} worker{'s' * (workers != 1)} would do"
    more = f"; the first {len(places)} are shown" if len(places) < workers else ""
    told = [Text(printable(f"It stays: {document['stays']}"), style="yellow")] if document["stays"] else []
    if move := document["move"]:
        why = f": {printable(move['reason'])}" if move["reason"] else ""
        told.append(Text.assemble("Move: ", state_text(move["state"]), why))
    return [table, *told, Text(total + more, style="dim" if may else "yellow")]


def _prospect(place: Document, *, is_best: bool) -> Text:
    if place["exclusion"] is not None:
        return Text(printable(place["exclusion"]), style="yellow")
    points = [
        *(["such a container failed there lately"] if place["failedLately"] else []),
        *([f"{place['siblings']} of its group there"] if place["siblings"] else []),
    ]
    rank = "the best" if is_best and place["loadPercent"] is not None else "would do"
    return Text("; ".join([rank, *points]), style="green")


def adoptable_table(document: Document) -> list[Any]:
    """The services of the engine that are not under management."""
    services = document["services"]
    if not services:
        return [Text("The engine has no service that is not under management.")]
    table = formats.plain_table("NAME", "IMAGE", "WORKER", "LIMITS", "ADOPTABLE", bars=(1, 3, 4))
    for service in services:
        node = f"node {service['node']}" if service["node"] else "-"
        obstacle, limits = service["obstacle"], ", ".join(formats.capacities(service["limits"]))
        answer = Text(printable(obstacle), style="yellow") if obstacle else Text("yes", style="green")
        where = _plain(service["workerName"] or node)
        table.add_row(_plain(service["name"]), _plain(service["image"]), where, limits, answer)
    return [table]


def policy_table(organizations: Sequence[Document]) -> list[Any]:
    """The policy of each organization for when a worker fails."""
    if not organizations:
        return [Text("No organizations: the panel makes them, or the first `skyctl services deploy`.")]
    table = formats.plain_table("ORG", "NAME", "POLICY")
    for organization in organizations:
        table.add_row(_plain(organization["slug"]), _plain(organization["name"]), organization["policy"])
    return [table]


def migration_table(page: Document, offset: int) -> list[Any]:
    """The migrations of a page, and how many there are."""
    table = MigrationTable(page["migrations"], page["readAt"])
    return _with_total(table, "migration", len(page["migrations"]), page["total"], offset)


class MigrationTable:
    """Migrations, one a line; where the terminal is narrow, the reasons stand below the table."""

    def __init__(self, migrations: Sequence[Document], now: str) -> None:
        self._migrations, self._now = migrations, now

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        beside = options.max_width >= REASON_BESIDE
        last = ("REASON",) if beside else ()
        table = formats.plain_table("ID", "SERVICE", "FROM → TO", "STATE", "CAUSE", "TRIES", "AGE", *last, bars=(7,))
        for migration in self._migrations:
            cells: list[Any] = [
                migration["id"][:SHORT_ID],
                _plain(migration["serviceName"]),
                _way(migration),
                state_text(migration["state"]),
                _cause(migration),
                str(migration["attempts"]),
                formats.age(migration["createdAt"], self._now),
            ]
            table.add_row(*cells, *([Text(reason(migration, self._now))] if beside else []))
        yield table
        if not beside:
            for migration in self._migrations:
                if why := reason(migration, self._now):
                    yield Text.assemble((migration["id"][:SHORT_ID], "bold"), "  ", why)


def migration_details(migration: Document) -> list[Any]:
    """Everything about one migration, and what happened to it."""
    state, now = migration["state"], migration["readAt"]
    stopped, ended = migration["sourceStoppedAt"], migration["finishedAt"]
    if stopped:
        old = f"stopped {formats.ago(stopped, now)}"
    elif state == MigrationState.COMPLETED:
        old = "not known to have stopped: it does when its worker returns"
    else:
        old = "stays where it is until the new one runs" if ended is None else "stays where it is"
    rows: list[tuple[str, Any]] = [
        ("Service", migration["serviceName"]),
        ("ID", migration["id"]),
        ("State", state_text(state)),
        ("Reason", reason(migration, now) or "-"),
        ("From", migration["sourceWorkerName"] or "-"),
        ("To", migration["targetWorkerName"] or "-"),
        ("Cause", _cause(migration)),
        ("Attempts", str(migration["attempts"])),
        ("Called for", formats.ago(migration["createdAt"], now)),
        ("Started", formats.ago(migration["startedAt"], now)),
        ("Finished", formats.ago(ended, now)),
    ]
    if migration["deadlineAt"] and ended is None:
        rows.append(("Deadline", _at(migration["deadlineAt"], now)))
    if migration["nextAttemptAt"] and state == MigrationState.FAILED and ended is None:
        rows.append(("Next attempt", _at(migration["nextAttemptAt"], now)))
    rows.append(("Old container", old))
    lines = events.event_lines(migration)
    return [formats.details(rows), *([Text(), *lines] if lines else [])]


def pause_note(page: Document) -> list[str]:
    """Return notes on what keeps migrations from beginning: a pause, an engine that does not answer, many workers that
    failed at once."""
    notes, pause, now = [], page["pause"], page["readAt"]
    if pause:
        until = f", for another {formats.ahead(pause['until'], now)}" if pause["until"] else ""
        why = f": {pause['reason']}" if pause["reason"] else ""
        when = formats.ago(pause["pausedAt"], now)
        notes.append(f"paused {when} by {pause['pausedBy']}{until}{why}; see `skyctl migrations resume`")
    if page["engineTrouble"]:
        notes.append(f"the engine cannot be asked, nothing moves: {page['engineTrouble']}")
    held = [migration for migration in page["migrations"] if migration["state"] == MigrationState.HELD]
    notes += [f"held: {migration['reason']}" for migration in held[:1]]
    asked = sum(1 for migration in page["migrations"] if migration["state"] == MigrationState.AWAITING_APPROVAL)
    if asked:
        notes.append(f"{asked} wait{'s' * (asked == 1)} for approval; see `skyctl migrations approve`")
    return [f"note: {printable(note)}" for note in notes]


def reason(migration: Document, now: str) -> str:
    """Return why a migration is not further, printable."""
    text, following = str(migration["reason"]), migration["nextAttemptAt"]
    is_over = migration["finishedAt"] is not None
    if migration["state"] == MigrationState.FAILED and following and not is_over:
        text += f"; tried again in {formats.ahead(following, now)}"
    if migration["cancelledBy"] and not is_over:
        text = f"being rolled back, cancelled by {migration['cancelledBy']}"
    return printable(text)


def state_text(state: str) -> Text:
    """A state in its colour."""
    return Text(state, style=STATE_COLORS.get(state, ""))


def _in_swarm(service: Document) -> list[tuple[str, Any]]:
    """What runs of a service, or why nobody can say; nothing where the engine was not asked."""
    if service["swarm"]:
        return swarm.running_rows(service["swarm"])
    return [("Runs", f"not known: {service['swarmTrouble']}")] if service["swarmTrouble"] else []


def _deployments(past: Sequence[Document], now: str) -> Table:
    table = formats.plain_table("DEPLOYMENT", "STATUS", "WORKER", "IMAGE", "BEGUN", "ERROR", bars=(3, 5))
    for deployment in past:
        table.add_row(
            deployment["id"][:SHORT_ID],
            _status(deployment["status"]),
            _worker(deployment),
            _plain(deployment["image"]),
            formats.ago(deployment["createdAt"], now),
            _plain(deployment["error"] or "-"),
        )
    return table


def _down(service: Document) -> str:
    return f"since {formats.ago(service['downSince'], service['readAt'])}: {service['downReason']}"


def _trouble(text: str) -> Text:
    return Text(printable(text), style="red")


def _status(status: str) -> Text:
    return Text(status, style=STATUS_COLORS.get(status, "cyan"))


def _cause(migration: Document) -> str:
    return CAUSES.get(migration["cause"], str(migration["cause"]))


def _placed_by(service: Document) -> str:
    return ", ".join(f"{wish} {service[wish]}" for wish in ("region", "pool", "spread") if service[wish]) or "load"


def _worker(deployment: Document | None) -> Text:
    return _plain((deployment["workerName"] if deployment else None) or "-")


def _way(migration: Document) -> Text:
    return _plain(f"{migration['sourceWorkerName'] or '-'} → {migration['targetWorkerName'] or '-'}")


def _at(at: str, now: str) -> str:
    return formats.ago(at, now) if formats.has_come(at, now) else f"in {formats.ahead(at, now)}"


def _plain(text: str) -> Text:
    return Text(printable(text))


def _with_total(table: Any, noun: str, shown: int, total: int, offset: int) -> list[Any]:
    count = formats.counted(noun, shown, total, offset)
    return [table, Text(count, style="dim")] if shown else [Text(count)]
