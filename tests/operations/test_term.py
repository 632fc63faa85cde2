"""A monitor whose term has ended writes and orders nothing, and its operations have no other way to do either."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from skyctl.domain.drains import DrainOptions
from skyctl.domain.errors import DatabaseUnavailable, EngineUnavailable, LostLead
from skyctl.operations.admin import drains
from skyctl.operations.monitor import migrations as migrations_monitor
from skyctl.operations.monitor import services as services_monitor
from skyctl.operations.shared.context import Engine
from skyctl.operations.shared.leadership import Term
from skyctl.store import drains as stored_drains
from tests.operations.test_deploying import deploy, interrupt
from tests.operations.test_migrations import fleet, pass_time
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS

__all__ = ["fleet"]

OPERATIONS = Path(__file__).parents[2] / "skyctl/operations/monitor"
NEEDS_NO_TERM = {"deliveries.py"}
"""What says itself why it needs none."""
ORDERS = {"deploy", "move", "stop", "remove", "set_availability", "remove_node"}
MAY_ORDER = {"term.engine()"}
ELSEWHERE = (".transaction", "context.recording", "context.engine")
BY_HAND = {"leases.hold", "events.lock"}
NO_EVENTS = ("term.writing", "term.reading")
EVENTS = "term.recording"
APPENDING = {"events.append", "events.record", "events.record_all"}


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def breaches(source: str) -> list[str]:
    """What in a source writes or orders by any other way than a term."""
    tree = ast.parse(source)
    found = [f"{call.lineno}: {ast.unparse(call.func)}" for call in calls(tree) if is_beside_the_term(call)]
    for block in ast.walk(tree):
        if isinstance(block, ast.With) and ast.unparse(block.items[0]).startswith(NO_EVENTS):
            found += [f"{call.lineno}: no events here" for call in calls(block) if ast.unparse(call.func) in APPENDING]
        if isinstance(block, ast.With) and ast.unparse(block.items[0]).startswith(EVENTS):
            appends = any(ast.unparse(call.func) in APPENDING for call in calls(block))
            found += [] if appends else [f"{block.lineno}: no event, and the log's lock"]
    return found


def is_beside_the_term(call: ast.Call) -> bool:
    called = ast.unparse(call.func)
    of, _, name = called.rpartition(".")
    return called in BY_HAND or called.endswith(ELSEWHERE) or (name in ORDERS and of not in MAY_ORDER)


@pytest.mark.parametrize("path", sorted(OPERATIONS.glob("*.py")), ids=lambda path: path.name)
def test_the_monitor_writes_and_orders_by_its_term_alone(path: Path) -> None:
    if path.name not in NEEDS_NO_TERM:
        assert breaches(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "with context.db.transaction() as tx: pass",
        "with term.context.db.transaction() as tx: pass",
        "with term.context.recording() as tx: pass",
        "term.context.engine().stop('x')",
        "engine.move('x', 1, 'y', {})",
        "leases.hold(tx, lease, TTL)",
        "with term.writing() as tx: events.append(tx, event)",
        "with term.recording() as tx: pass",
    ],
)
def test_the_law_would_notice(line: str) -> None:
    assert breaches(line)
    assert not breaches("with term.recording() as tx: events.append(tx, event)\nterm.engine().stop('x')")


def test_what_only_reads_cannot_write(fleet: Fleet) -> None:
    with pytest.raises(DatabaseUnavailable, match="read-only"), fleet.term().reading() as tx:
        stored_drains.note_nodes(tx, [], [])


def all_rows(fleet: Fleet) -> list[list[tuple[Any, ...]]]:
    """Whatever the monitor could have written."""
    tables = ("worker_events", "container_services", "container_deployments", "container_migrations", "monitor_leases")
    return [fleet.connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables]


def pending(fleet: Fleet) -> None:
    interrupt(fleet, "app:2")
    pass_time(fleet, seconds=31)


def leftover(fleet: Fleet) -> None:
    interrupt(fleet, "app:2")
    fleet.connection.execute("UPDATE container_services SET status = 'deleted', current_deployment_id = NULL")
    pass_time(fleet, seconds=31)


def to_be_stopped(fleet: Fleet) -> None:
    fleet.engine.unhealthy = {(fleet.nodes[name], "app:1") for name in ("w2", "w3")}
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS, DrainOptions(deadline=timedelta(seconds=10), force=True))
    fleet.settle()
    pass_time(fleet, seconds=11)
    fleet.beat()
    migrations_monitor.reconcile_migrations(fleet.term())


def to_be_paused(fleet: Fleet) -> None:
    drains.drain(fleet.context, [fleet.ids["w2"]], TESTS)


def to_be_resumed(fleet: Fleet) -> None:
    to_be_paused(fleet)
    fleet.settle()
    drains.undrain(fleet.context, fleet.ids["w2"], TESTS)


def to_be_moved(fleet: Fleet) -> None:
    drains.drain(fleet.context, [fleet.ids["w1"]], TESTS)
    migrations_monitor.reconcile_migrations(fleet.term())


def doubled(fleet: Fleet) -> None:
    current = fleet.services()["a"].current
    assert current
    fleet.engine.double(str(current.swarm_service_id))


def reconcile_services(term: Term) -> object:
    return services_monitor.reconcile_services(term, all_of_them=True)


class TermEnds:
    """An engine while whose first answer the term of whoever asks comes to its end."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self.has_ended = fleet, False

    def __getattr__(self, name: str) -> Any:
        if not self.has_ended and name in ("observe", "find"):
            self.has_ended = True
            self._fleet.term()
        return getattr(self._fleet.engine, name)


WORK = [
    (pending, reconcile_services),
    (leftover, reconcile_services),
    (to_be_stopped, reconcile_services),
    (to_be_paused, reconcile_services),
    (to_be_resumed, reconcile_services),
    (doubled, reconcile_services),
    (to_be_moved, migrations_monitor.reconcile_migrations),
]


@pytest.mark.parametrize("when", ["before", "while the engine is asked"])
@pytest.mark.parametrize(("prepare", "reconcile"), WORK, ids=[prepare.__name__ for prepare, _ in WORK])
def test_a_stale_term_neither_orders_nor_writes(
    fleet: Fleet, prepare: Callable[[Fleet], None], reconcile: Callable[[Term], object], when: str
) -> None:
    fleet.deploy("a", to="w1")
    prepare(fleet)
    term, orders = fleet.term(), list(fleet.engine.orders)
    ending = TermEnds(fleet)
    if when == "before" or prepare is to_be_stopped:  # that asks nothing of the engine before it stops
        fleet.term()
        ending.has_ended = True
    rows = all_rows(fleet)
    with pytest.raises(LostLead):
        reconcile(replace(term, context=replace(fleet.context, engine=lambda: cast(Engine, ending))))
    assert fleet.engine.orders == orders
    assert ending.has_ended
    after = all_rows(fleet)
    assert after[0] == rows[0]
    if when == "before":
        assert after == rows
    assert reconcile(fleet.term())
    fleet.settle()
    assert fleet.engine.orders[len(orders) :], "whoever leads then does it"


def test_an_engine_that_is_away_costs_no_term(fleet: Fleet) -> None:
    term = fleet.term()
    fleet.deploy("a", to="w1")
    term = fleet.term()
    fleet.engine.unavailable = "away"
    with pytest.raises(EngineUnavailable):
        reconcile_services(term)
    fleet.engine.unavailable = ""
    term.renew()
    deploy(fleet.context, fleet, "app:2")
