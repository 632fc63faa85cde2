"""Every table on terminals of every width, with names as long as they may be: none and no id is ever lost."""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from skyctl.cli import views
from skyctl.documents import cli, http, swarm, workers
from skyctl.documents.api_tokens import tokens_document
from skyctl.documents.prospects import outlook_document
from skyctl.domain.api_tokens import ApiToken, Role
from skyctl.domain.cluster import Alert, Capacity, ClusterStats, Event, HealthPolicy, Load, Overview, Worker, WorkerPage
from skyctl.domain.drains import Planned
from skyctl.domain.engine import EngineService, Occupant
from skyctl.domain.events import EventKind
from skyctl.domain.states import (
    DeploymentStatus,
    EndpointMode,
    MigrationCause,
    MigrationPolicy,
    MigrationState,
    ServiceStatus,
    WorkerStatus,
)
from skyctl.domain.workloads import (
    Adoptable,
    Deployment,
    Migration,
    MigrationPage,
    Organization,
    Outlook,
    Place,
    Prospect,
    Service,
    ServicePage,
    ServiceSpec,
    SwarmService,
)

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
EARLIER = NOW - timedelta(minutes=5)
WIDTHS = (40, 80, 100, 140, 200)
LONGEST = 63


def long_name(number: int) -> str:
    """A name whose characters no other name and no word has, so that each is found wherever it was folded."""
    first = 0x100 + number * LONGEST
    return "".join(map(chr, range(first, first + LONGEST)))


WORKER, SERVICE, SLUG, OTHER = map(long_name, range(4))
IDS = [UUID(int=0x0123456789ABCDEF0123456789ABCDEF + number) for number in range(4)]


def worker() -> Worker:
    return Worker(
        IDS[0],
        WORKER,
        "host",
        "192.0.2.1",
        WorkerStatus.DRAINING,
        Capacity(4, 8192, 100),
        Load(91, 42, 7, 12),
        EARLIER,
        EARLIER,
        last_heartbeat_at=EARLIER,
        swarm_node_id="node123",
        swarm_node_trouble="another address",
        drain_requested_at=EARLIER,
    )


def deployment() -> Deployment:
    status = DeploymentStatus.RUNNING
    return Deployment(IDS[1], IDS[2], IDS[0], WORKER, "svc1", "c0ffee", "app:1", status, "", EARLIER, None, EARLIER)


def service() -> Service:
    spec = ServiceSpec(SERVICE, "app:1", Capacity(1, 512, 1))
    return Service(IDS[2], IDS[3], SLUG, "s", ServiceStatus.RUNNING, spec, deployment(), EARLIER, EARLIER)


def migration() -> Migration:
    return Migration(
        id=IDS[3],
        service_id=IDS[2],
        service_name=SERVICE,
        service_slug="s",
        organization_id=None,
        cause=MigrationCause.DRAIN,
        state=MigrationState.AWAITING_APPROVAL,
        reason="no worker has enough memory for it",
        source_worker_id=IDS[0],
        source_worker_name=WORKER,
        target_worker_id=IDS[1],
        target_worker_name=OTHER,
        source_deployment_id=None,
        target_deployment_id=None,
        swarm_service_id=None,
        source_node_id=None,
        target_node_id=None,
        avoid=frozenset(),
        cancelled_by=None,
        is_hurried=False,
        attempts=1,
        next_attempt_at=None,
        deadline_at=None,
        started_at=None,
        finished_at=None,
        source_stopped_at=None,
        created_at=EARLIER,
        updated_at=EARLIER,
    )


def engine_service() -> EngineService:
    return EngineService("svc1", SERVICE, 1, "app:1", {}, None, 1, EndpointMode.VIP, Capacity())


def page(*, wide: bool) -> Any:
    document = workers.page_document(WorkerPage((worker(),), 1, 1, 0, NOW, NOW, monitor_leads=True), HealthPolicy())
    if wide:
        document["workers"][0]["runs"] = workers.runs_document(worker(), [Occupant("svc1", SERVICE, 1, 1, 0)])
    return document


def token() -> ApiToken:
    return ApiToken(IDS[0], WORKER, Role.ADMIN, SERVICE, EARLIER)


STATS = ClusterStats({WorkerStatus.ACTIVE: 3}, Capacity(4, 8192, 100), Load(91, 42, 7, 12), Load(91, 42, 7, 12))
ALERT = Alert("offline", IDS[0], "t", f"{WORKER} is offline", id=123456, at=EARLIER)
EVENT = Event(EventKind.DRAIN_FINISHED, IDS[0], WORKER, SERVICE, at=EARLIER)
PLANNED = Planned(SERVICE, SLUG, WORKER, OTHER, "most free memory", way="start first")
ADOPTABLE = Adoptable(engine_service(), "node", IDS[0], WORKER, Capacity(1, 512, 1), "it keeps data on its node")
PROSPECTS = [Prospect(IDS[0], WORKER, "", siblings=7, load_percent=91), Prospect(IDS[1], OTHER, "other region")]
PLACED = SwarmService(engine_service(), True, [Place(WORKER, "host", 1)])
ORGANIZATION = Organization(IDS[0], WORKER, SLUG, MigrationPolicy.AUTOMATIC)
MOVES = MigrationPage([migration()], 1, NOW, None, None)
SERVICES = ServicePage([service()], 1, NOW)

Draw = Callable[[], Iterable[Any]]
TABLES: dict[str, tuple[Draw, Sequence[str]]] = {
    "workers list": (lambda: views.workers.worker_table(page(wide=False)), [WORKER, "draining", "91%", "42%", "12"]),
    "workers list -o wide": (
        lambda: views.workers.worker_table(page(wide=True), wide=True),
        [WORKER, "draining", "91%", str(IDS[0]), "not known: its node is not confirmed"],
    ),
    "workers show": (
        lambda: views.workers.worker_details(workers.worker_details_document(worker(), NOW, HealthPolicy(), None)),
        [WORKER, str(IDS[0])],
    ),
    "cluster stats": (
        lambda: views.workers.stats_tables(http.stats_document(STATS, HealthPolicy())),
        ["active", "91%", "42%", "8.0 GiB"],
    ),
    "services list": (
        lambda: views.workloads.service_table(cli.services_document(SERVICES), 0, wide=False),
        [SERVICE, SLUG, "running", WORKER, "app:1"],
    ),
    "services list -o wide": (
        lambda: views.workloads.service_table(cli.services_document(SERVICES), 0, wide=True),
        [SERVICE, SLUG, "running", WORKER, str(IDS[2]), "512 MiB memory", "c0ffee"],
    ),
    "services show": (
        lambda: views.workloads.service_details(
            cli.service_history_document(service(), [deployment()], [migration()], NOW)
        ),
        [SERVICE, SLUG, WORKER, OTHER, str(IDS[2]), str(IDS[1])[:8]],
    ),
    "services why": (
        lambda: views.workloads.outlook(outlook_document(Outlook(service(), migration(), "", PROSPECTS))),
        [WORKER, OTHER, "91 %", "7 of its group", "other region"],
    ),
    "services list --all": (
        lambda: views.swarm.services_table(swarm.swarm_services_document([PLACED]), wide=False),
        [SERVICE, WORKER, "1 of 1"],
    ),
    "services list --all -o wide": (
        lambda: views.swarm.services_table(swarm.swarm_services_document([PLACED]), wide=True),
        [SERVICE, WORKER, "1 of 1", "svc1"],
    ),
    "services adopt": (
        lambda: views.workloads.adoptable_table({"services": [cli.adoptable_document(ADOPTABLE)]}),
        [SERVICE, WORKER, "app:1"],
    ),
    "workers drain --plan": (
        lambda: views.workloads.plan_table(cli.plan_document([PLANNED])),
        [SERVICE, SLUG, WORKER, OTHER],
    ),
    "migrations list": (
        lambda: views.workloads.migration_table(cli.migrations_document(MOVES), 0),
        [str(IDS[3])[:8], SERVICE, WORKER, OTHER, "awaiting_approval"],
    ),
    "migrations show": (
        lambda: views.workloads.migration_details(cli.migration_history_document(migration(), [EVENT], NOW)),
        [str(IDS[3]), SERVICE, WORKER, OTHER],
    ),
    "policy get": (
        lambda: views.workloads.policy_table([cli.organization_document(ORGANIZATION)]),
        [SLUG, WORKER, "automatic"],
    ),
    "tokens list": (lambda: views.api_tokens.token_table(tokens_document([token()], NOW)), [WORKER, SERVICE, "good"]),
    "alerts list": (
        lambda: views.events.alert_table(cli.alerts_document([(ALERT, 1, 0, 0)], NOW)),
        ["123456", "offline", WORKER],
    ),
    "events": (lambda: views.events.event_lines({"events": [cli.event_document(EVENT)]}), [WORKER, SERVICE]),
    "db check": (
        lambda: views.doctor.schema_table({"version": 1, "expectedVersion": 2, "missing": [WORKER, SERVICE]}),
        [WORKER, SERVICE],
    ),
}


def drawn(parts: Iterable[Any], width: int) -> str:
    """What a person sees of it, on a terminal that shows the rest of a long line below."""
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, markup=False)
    for part in parts:
        console.print(part, crop=False)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def is_found(wanted: str, text: str) -> bool:
    """Whether a text is there; a long name may be folded anywhere, others between words, and ids beside their name."""
    if len(wanted) < LONGEST:
        return all(word in text for word in wanted.split()) or wanted in "".join(text.split())
    position = -1
    for character in wanted:
        position = text.find(character, position + 1)
        if position < 0:
            return False
    return True


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", TABLES)
def test_no_name_and_no_id_is_lost_at_any_width(command: str, width: int) -> None:
    draw, wanted = TABLES[command]
    text = drawn(draw(), width)
    assert [each for each in wanted if not is_found(each, text)] == []


@pytest.mark.parametrize("command", [command for command in TABLES if "wide" not in command])
def test_what_is_folded_fits_the_usual_terminals(command: str) -> None:
    draw, _ = TABLES[command]
    for width in (100, 140, 200):
        assert max(map(len, drawn(draw(), width).splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_the_screen_of_the_cluster_keeps_names_apart(width: int) -> None:
    """Those that differ at their ends alone, too; and every line of a small screen is still filled."""
    names = [f"node-{'0' * 53}-{number:04}" for number in range(3)]
    rows = [replace(worker(), name=name, last_heartbeat_at=EARLIER) for name in names]
    overview = Overview(NOW, HealthPolicy(), STATS, rows, [], None, NOW, [], {})
    console = Console(file=io.StringIO(), width=width, height=40, color_system=None)
    screen = views.top.FullScreen(views.top.Picture(cli.overview_document(overview)))
    lines = ["".join(part.text for part in line) for line in console.render_lines(screen, console.options, pad=False)]
    told = "".join(line[: len(names[0])].split(" ")[0] for line in lines)
    assert [name for name in names if name not in told] == []
    assert (len(lines), max(map(len, lines)) <= width) == (40, True)
    page = drawn(views.top.page(cli.overview_document(overview)), width)
    assert "…" not in page.partition("NAME")[2].partition("EVENTS")[0].partition("\n")[2]


def test_bars_give_way_before_names() -> None:
    lines = drawn(views.workers.worker_table(page(wide=False)), 140).splitlines()
    assert WORKER in lines[1], "the name is on one line"
    assert "█" in drawn(views.workers.worker_table(page(wide=False)), 200)
    assert "█" not in drawn(views.workers.worker_table(page(wide=False)), 100)


def test_wide_tables_fold_no_name() -> None:
    for command in ("workers list -o wide", "services list -o wide", "services list --all -o wide"):
        draw, wanted = TABLES[command]
        for width in WIDTHS:
            text = drawn(draw(), width)
            assert all(each in text for each in wanted), (command, width)
