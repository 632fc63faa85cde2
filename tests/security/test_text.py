"""Text that others wrote, at every door: what a terminal obeys or hides is refused on the way in, escaped on the way
out."""

import io
import json
import logging
import unicodedata
from uuid import uuid4

import psycopg
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from skyctl.documents import http
from skyctl.domain.cluster import AlertPolicy, Event
from skyctl.domain.errors import ValidationError
from skyctl.domain.events import EventKind
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import CONTROL, printable, printable_json
from skyctl.host import logs
from skyctl.operations.admin import drains
from skyctl.operations.shared.context import Context
from skyctl.rules import alerts
from tests.conftest import Cli
from tests.support.helpers import TESTS, add_worker, look

pytestmark = pytest.mark.in_process

RANGES = [
    *((0x00, 0x1F), (0x7F, 0x9F), (0x061C, 0x061C), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F)),
    *((0xFEFF, 0xFEFF), (0xE0000, 0xE007F)),
]
CHARACTERS = [chr(code) for first, last in RANGES for code in range(first, last + 1)]
NASTY = "w\x1b[2J\u202e\u2066\u200b\x9b31m\u2028\ufeff\U000e0041\nz"


def is_clean(shown: str) -> bool:
    """Whether nothing but ends of lines is left of what a terminal obeys or hides."""
    return not CONTROL.search(shown.replace("\n", ""))


@pytest.mark.parametrize("character", CHARACTERS, ids=lambda character: f"U+{ord(character):04X}")
def test_each_is_refused_and_escaped(character: str) -> None:
    with pytest.raises(ValidationError):
        http.reason(f"a{character}b")
    shown = printable(f"a{character}b")
    assert shown.isascii()
    assert shown.isprintable()
    document = printable_json(json.dumps([f"a{character}b"], ensure_ascii=False))
    assert document.isascii()
    assert document.isprintable()
    assert json.loads(document) == [f"a{character}b"]


@given(text=st.text())
def test_what_is_printable_holds_no_control_or_format_character(text: str) -> None:
    """Signs of Arabic and of other scripts are of the category of formats too, and are seen."""
    kinds = {unicodedata.category(character) for character in printable(text)}
    assert not kinds & {"Cc", "Zl", "Zp", "Cs"}
    assert printable(printable(text)) == printable(text)


@pytest.fixture
def nasty(connection: psycopg.Connection, context: Context) -> str:
    """The id of a worker of the panel whose every text is nasty."""
    worker = add_worker(
        connection,
        name=NASTY,
        hostname=NASTY,
        swarm_node_id=NASTY,
        status="active",
        metadata=json.dumps({NASTY: NASTY, "region": NASTY, "agentVersion": NASTY}),
    )
    drains.drain(context, [worker], TESTS)
    connection.execute("UPDATE container_workers SET drain_reason = %s, status = 'offline'", (NASTY,))
    connection.execute("UPDATE worker_events SET reason = %s, actor = %s", (NASTY, NASTY))
    look(context)
    return str(worker)


@pytest.mark.parametrize(
    "command",
    [
        *("workers list", "workers list -o wide", "workers list -o name", "workers show {}", "workers why {}"),
        *("workers list -o json", "workers show {} -o yaml", "workers why {} -o json", "events", "events -o json"),
        *("cluster top", "cluster top -o json", "doctor", "doctor -o json", "workers drain {} --dry-run"),
        *("workers undrain {}", "workers revoke {} --yes", "workers remove {} --yes"),
    ],
)
def test_nothing_that_commands_print_steers_the_terminal(cli: Cli, nasty: str, command: str) -> None:
    done = cli(*command.format(nasty).split())
    assert is_clean(done.stdout + done.stderr)
    assert "Traceback" not in done.stderr
    if command.endswith("json"):
        assert "z" in json.dumps(json.loads(done.stdout))
    if "show" in command and "yaml" in command:
        assert yaml.safe_load(done.stdout)["name"] == NASTY


def test_an_error_is_one_line_and_its_hint_another(cli: Cli, nasty: str, connection: psycopg.Connection) -> None:
    add_worker(connection, name=NASTY)
    several = cli("workers", "show", NASTY)
    assert several.returncode == 2
    assert nasty in several.stderr
    assert is_clean(several.stderr)
    assert [line.partition(":")[0] for line in several.stderr.splitlines()] == ["error", "hint"]


def test_a_line_of_the_log_is_one_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.Line("%(levelname)s %(message)s"))
    log = logging.Logger("test")
    log.addHandler(handler)
    log.warning("action=x reason=%s", NASTY)
    (line,) = stream.getvalue().splitlines()
    assert is_clean(line)
    try:
        raise ValueError(NASTY)
    except ValueError:
        log.exception("action=y")
    assert is_clean(stream.getvalue())
    assert "Traceback" in stream.getvalue()


def test_texts_of_alerts_are_printable() -> None:
    change = {"from_status": WorkerStatus.ACTIVE, "to_status": WorkerStatus.OFFLINE, "reason": NASTY}
    events = [
        Event(EventKind.STATUS_CHANGED, uuid4(), NASTY, "monitor", seq=number, **change)  # type: ignore[arg-type]
        for number in range(1, 3)
    ]
    drafts, _ = alerts.compose(events, {}, [], AlertPolicy())
    assert drafts
    for draft in drafts:
        assert not CONTROL.search(draft.alert.title + draft.alert.message)
        assert "w\\x1b[2J\\u202e" in draft.alert.message


def test_the_activity_log_is_printable(nasty: str, connection: psycopg.Connection) -> None:
    rows = connection.execute("SELECT message FROM activity_logs WHERE entity_id = %s", (nasty,)).fetchall()
    assert rows
    assert not any(CONTROL.search(row[0]) for row in rows)
