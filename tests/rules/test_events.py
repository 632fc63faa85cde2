"""The table of events: complete, and the only place where kinds are written out."""

import ast
import re
from pathlib import Path

import pytest

from skyctl.domain.event_details import Details
from skyctl.domain.events import EventKind
from skyctl.domain.states import DeploymentStatus, MigrationState

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "skyctl").rglob("*.py"))


def test_every_kind_is_stored_by_its_name_and_fits_the_column() -> None:
    for kind in EventKind:
        assert kind == kind.name.lower()
        assert len(kind) <= 50
        assert "\n" not in kind.meaning


def test_a_kind_of_another_version_can_be_read_but_is_no_member() -> None:
    foreign = EventKind.read("rebalanced")
    assert (foreign, foreign.value, foreign.details) == ("rebalanced", "rebalanced", Details)
    assert foreign not in list(EventKind)
    assert EventKind.read("invited") is EventKind.INVITED


def test_what_becomes_of_deployments_and_migrations_has_a_kind() -> None:
    """Those states that the monitor writes by name."""
    followed = set(DeploymentStatus) - {DeploymentStatus.PENDING, DeploymentStatus.BUILDING}
    called_for = set(MigrationState) - {MigrationState.STARTING, MigrationState.VERIFYING}
    names = {f"SERVICE_{status.name}" for status in followed} | {f"MIGRATION_{state.name}" for state in called_for}
    assert names <= set(EventKind.__members__)


def literal_kinds(tree: ast.AST) -> list[int]:
    """The lines where an event's kind is a literal: as it is made, or compared."""
    found = []
    for node in ast.walk(tree):
        values: list[ast.expr] = []
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Event":
            values = [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg == "kind")]
        elif isinstance(node, ast.Compare) and re.search(r"\bevents?\b.*\.kind$", ast.unparse(node.left)):
            values = node.comparators
        found += [
            inner.lineno
            for value in values
            for inner in ast.walk(value)
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and not isinstance(value, ast.Subscript)
        ]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_kind_is_written_out(path: Path) -> None:
    assert literal_kinds(ast.parse(path.read_text())) == []


def test_a_kind_that_is_written_out_would_be_noticed() -> None:
    code = (
        "Event('a', None)\nEvent(kind='a')\nevent.kind == 'a'\nevents.c.kind in ('a', 'b')\nEvent(EventKind.A, 'x')\n"
    )
    assert literal_kinds(ast.parse(code)) == [1, 2, 3, 4, 4]


def test_kinds_within_sql_are_of_the_table() -> None:
    texts = [(ROOT / "schema.sql").read_text(), *(path.read_text() for path in (ROOT / "skyctl/store").glob("*.py"))]
    statements = re.findall(
        r"INTO worker_events.*?VALUES \('(\w+)'|worker_events\b[^;\"]*?\bkind (?:=|IN) \(?([^);]*)[);]",
        "".join(texts),
        re.S,
    )
    kinds = {kind for pair in statements for text in pair for kind in re.findall(r"\w+", text)}
    assert kinds == {"removed", "flapping", "settled", "status_changed"}
    assert kinds <= {kind.value for kind in EventKind}
