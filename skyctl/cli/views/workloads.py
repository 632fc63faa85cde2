"""Services, migrations and drains as they are printed: tables and details. No I/O."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from skyctl.cli.views import events, formats
from skyctl.documents import manifest
from skyctl.domain.cluster import Capacity, Event
from skyctl.domain.states import DeploymentStatus, MigrationCause, MigrationState, ServiceStatus
from skyctl.domain.text import printable
from skyctl.domain.workloads import (
    Adoptable,
    Deployment,
    Migration,
    MigrationPage,
    Organization,
    Planned,
    Service,
    ServicePage,
)

REASON_BESIDE = 110  # columns from which a reason stands in the line of what it is about
SHORT_ID = 8
CAUSES = {MigrationCause.WORKER_FAILED: "failure", MigrationCause.DRAIN: "drain"}
STATE_COLORS = {
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


def service_table(page: ServicePage, offset: int, *, wide: bool) -> list[Any]:
    """The services of a page, and how many there are."""
    more = ("ID", "LIMITS", "PORTS", "CONTAINER") if wide else ()
    table = formats.plain_table("NAME", "ORG", "STATUS", "WORKER", "IMAGE", "CHANGED", *more, bars=(4,))
    for service in page.services:
        spec, current = service.spec, service.current
        cells: list[Any] = [
            _plain(spec.name),
            _plain(service.organization),
            _status(service.status),
            _worker(current),
            _plain(spec.image),
            formats.ago(service.updated_at, page.read_at),
        ]
        if wide:
            ports = ", ".join(manifest.port_text(port) for port in spec.ports) or "-"
            container = (current.container_id or "-")[:12] if current else "-"
            cells += [str(service.id), formats.capacity_text(spec.limits), ports, _plain(container)]
        table.add_row(*cells)
    return _with_total(table, "service", len(page.services), page.total, offset)


def service_details(
    service: Service, past: Sequence[Deployment], moves: Sequence[Migration], now: datetime
) -> list[Any]:
    """Everything about one service. Of its variables only the names are shown, since the values may be secrets."""
    spec, current = service.spec, service.current
    error = (past[0].log if past and past[0].status is not DeploymentStatus.RUNNING else "") or (
        current.log if current else ""
    )
    rows: list[tuple[str, Any]] = [
        ("Name", spec.name),
        ("ID", str(service.id)),
        ("Organization", service.organization),
        ("Status", _status(service.status)),
        *([("Down", Text(printable(_down(service, now)), style="red"))] if service.down_reason else []),
        *([("Error", Text(printable(error), style="red"))] if error else []),
        ("Worker", _worker(current)),
        ("Image", spec.image),
        ("Limits", formats.capacity_text(spec.limits)),
        ("Ports", ", ".join(manifest.port_text(port) for port in spec.ports) or "-"),
        ("Endpoint mode", spec.endpoint_mode.value),
        ("Variables", ", ".join(sorted(spec.environment)) or "-"),
        ("Labels", ", ".join(f"{key}={value}" for key, value in sorted(spec.labels.items())) or "-"),
        ("Command", " ".join(spec.command) or "-"),
        ("Placed by", _placed_by(service)),
        ("Engine's id", (current.swarm_service_id if current else None) or "-"),
        ("Container", (current.container_id if current else None) or "-"),
        ("Adopted", "yes: the engine has more of it than is shown here" if spec.adopted else "no"),
        ("Created", formats.ago(service.created_at, now)),
    ]
    parts: list[Any] = [formats.details(rows)]
    if past:
        parts += [Text(), _deployments(past, now)]
    if moves:
        parts += [Text(), MigrationTable(moves, now)]
    return parts


def plan_table(planned: Sequence[Planned]) -> list[Any]:
    """The places to which containers would go, each with its reason."""
    if not planned:
        return [Text("No containers.")]
    table = formats.plain_table("SERVICE", "ORG", "FROM", "TO", "REASON", bars=(4,))
    for container in planned:
        target = _plain(container.target) if container.target else Text("nowhere", style="red")
        reason = Text(printable(container.reason), style="" if container.target else "red")
        table.add_row(
            _plain(container.service_name),
            _plain(container.organization),
            _plain(container.source or "-"),
            target,
            reason,
        )
    lost = sum(1 for container in planned if container.target is None)
    total = f"{len(planned)} container{'s' * (len(planned) != 1)}" + (f", {lost} without a place" if lost else "")
    return [table, Text(total, style="bold red" if lost else "dim")]


def adoptable_table(services: Sequence[Adoptable]) -> list[Any]:
    """The services of the engine that are not under management."""
    if not services:
        return [Text("The engine has no service that is not under management.")]
    table = formats.plain_table("NAME", "IMAGE", "WORKER", "LIMITS", "ADOPTABLE", bars=(1, 3, 4))
    for service in services:
        where = _plain(service.worker_name or f"node {service.node}" if service.worker_name or service.node else "-")
        answer = Text(printable(service.obstacle), style="yellow") if service.obstacle else Text("yes", style="green")
        table.add_row(_plain(service.engine.name), _plain(service.engine.image), where, _limits(service.limits), answer)
    return [table]


def policy_table(organizations: Sequence[Organization]) -> list[Any]:
    """The policy of each organization for when a worker fails."""
    if not organizations:
        return [Text("No organizations: the panel makes them, or the first `skyctl services deploy`.")]
    table = formats.plain_table("ORG", "NAME", "POLICY")
    for organization in organizations:
        table.add_row(_plain(organization.slug), _plain(organization.name), organization.policy.value)
    return [table]


def migration_table(page: MigrationPage, offset: int) -> list[Any]:
    """The migrations of a page, and how many there are."""
    table = MigrationTable(page.migrations, page.read_at)
    return _with_total(table, "migration", len(page.migrations), page.total, offset)


class MigrationTable:
    """Migrations, one a line; where the terminal is narrow, the reasons stand below the table."""

    def __init__(self, migrations: Sequence[Migration], now: datetime) -> None:
        self._migrations, self._now = migrations, now

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        beside = options.max_width >= REASON_BESIDE
        last = ("REASON",) if beside else ()
        table = formats.plain_table("ID", "SERVICE", "FROM → TO", "STATE", "CAUSE", "TRIES", "AGE", *last, bars=(7,))
        for migration in self._migrations:
            cells: list[Any] = [
                str(migration.id)[:SHORT_ID],
                _plain(migration.service_name),
                _way(migration),
                state_text(migration.state),
                CAUSES[migration.cause],
                str(migration.attempts),
                formats.span(self._now - migration.created_at),
            ]
            table.add_row(*cells, *([Text(reason(migration, self._now))] if beside else []))
        yield table
        if not beside:
            for migration in self._migrations:
                if why := reason(migration, self._now):
                    yield Text.assemble((str(migration.id)[:SHORT_ID], "bold"), "  ", why)


def migration_details(migration: Migration, history: Sequence[Event], now: datetime) -> list[Any]:
    """Everything about one migration, and what happened to it."""
    stopped, ended = migration.source_stopped_at, migration.finished_at
    if stopped:
        old = f"stopped {formats.ago(stopped, now)}"
    elif migration.state is MigrationState.COMPLETED:
        old = "not known to have stopped: it does when its worker returns"
    else:
        old = "stays where it is until the new one runs" if ended is None else "stays where it is"
    rows: list[tuple[str, Any]] = [
        ("Service", migration.service_name),
        ("ID", str(migration.id)),
        ("State", state_text(migration.state)),
        ("Reason", reason(migration, now) or "-"),
        ("From", migration.source_worker_name or "-"),
        ("To", migration.target_worker_name or "-"),
        ("Cause", CAUSES[migration.cause]),
        ("Attempts", str(migration.attempts)),
        ("Called for", formats.ago(migration.created_at, now)),
        ("Started", formats.ago(migration.started_at, now)),
        ("Finished", formats.ago(ended, now)),
    ]
    if migration.deadline_at and ended is None:
        rows.append(("Deadline", _at(migration.deadline_at, now)))
    if migration.next_attempt_at and migration.state is MigrationState.FAILED and ended is None:
        rows.append(("Next attempt", _at(migration.next_attempt_at, now)))
    rows.append(("Old container", old))
    return [formats.details(rows), *([Text(), *map(events.event_line, history)] if history else [])]


def pause_note(page: MigrationPage) -> list[str]:
    """Return notes on what keeps migrations from beginning: a pause, an engine that does not answer, many workers that
    failed at once."""
    notes, pause = [], page.pause
    if pause:
        until = f", for another {formats.ahead(pause.until_at, page.read_at)}" if pause.until_at else ""
        why = f": {pause.reason}" if pause.reason else ""
        when = formats.ago(pause.paused_at, page.read_at)
        notes.append(f"paused {when} by {pause.paused_by}{until}{why}; see `skyctl migrations resume`")
    if page.engine_trouble:
        notes.append(f"the engine cannot be asked, nothing moves: {page.engine_trouble}")
    held = [migration for migration in page.migrations if migration.state is MigrationState.HELD]
    notes += [f"held: {migration.reason}" for migration in held[:1]]
    asked = sum(1 for migration in page.migrations if migration.state is MigrationState.AWAITING_APPROVAL)
    if asked:
        notes.append(f"{asked} wait{'s' * (asked == 1)} for approval; see `skyctl migrations approve`")
    return [f"note: {printable(note)}" for note in notes]


def reason(migration: Migration, now: datetime) -> str:
    """Return why a migration is not further, printable."""
    text = migration.reason
    if migration.state is MigrationState.FAILED and migration.next_attempt_at and migration.finished_at is None:
        text += f"; tried again in {formats.ahead(migration.next_attempt_at, now)}"
    if migration.cancelled_by and migration.finished_at is None:
        text = f"being rolled back, cancelled by {migration.cancelled_by}"
    return printable(text)


def state_text(state: MigrationState) -> Text:
    """A state in its colour."""
    return Text(state.value, style=STATE_COLORS[state])


def _deployments(past: Sequence[Deployment], now: datetime) -> Table:
    table = formats.plain_table("DEPLOYMENT", "STATUS", "WORKER", "IMAGE", "BEGUN", "ERROR", bars=(3, 5))
    for deployment in past:
        table.add_row(
            str(deployment.id)[:SHORT_ID],
            _status(deployment.status),
            _worker(deployment),
            _plain(deployment.image),
            formats.ago(deployment.created_at, now),
            Text(printable(deployment.log or "-")),
        )
    return table


def _down(service: Service, now: datetime) -> str:
    return f"since {formats.ago(service.down_since, now)}: {service.down_reason}"


def _status(status: ServiceStatus | DeploymentStatus) -> Text:
    return Text(status.value, style=STATUS_COLORS.get(status.value, "cyan"))


def _placed_by(service: Service) -> str:
    spec = service.spec
    wishes = (("region", spec.region), ("pool", spec.pool), ("spread", spec.spread))
    return ", ".join(f"{name} {value}" for name, value in wishes if value) or "load"


def _worker(deployment: Deployment | None) -> Text:
    return _plain((deployment.worker_name if deployment else None) or "-")


def _limits(limits: Capacity) -> str:
    return ", ".join(formats.capacities(limits))


def _way(migration: Migration) -> Text:
    return _plain(f"{migration.source_worker_name or '-'} → {migration.target_worker_name or '-'}")


def _at(at: datetime, now: datetime) -> str:
    return f"in {formats.ahead(at, now)}" if at > now else formats.ago(at, now)


def _plain(text: str) -> Text:
    return Text(printable(text))


def _with_total(table: Any, noun: str, shown: int, total: int, offset: int) -> list[Any]:
    count = formats.counted(noun, shown, total, offset)
    return [table, Text(count, style="dim")] if shown else [Text(count)]
