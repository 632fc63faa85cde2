"""Transcripts of a fleet, whose lines are played by the real operations on a real database whose clock is moved.

    join w1 w2 region=eu     workers are invited and register; an administrator sets their region
    alive w1, dead w1        their agents beat every 10 s, or no more
    load w1 cpu=99 disk=10   the load that they report from now on
    stop w1                  the agent ends on purpose
    serve down, serve up     no process can hear workers
    database down, up        nor can the monitor check them
    drain w1, undrain w1, remove w1, resume    what an administrator does
    advance 60               the time passes without a check
    watch 60                 the same, with a check every 4 s
    pass                     one check of the monitor
    clock -3600              somebody sets the database's clock, by so many seconds

`w1..w60` is a range. The lines below a command are the events that a check gave, and the alerts.
"""

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

from skyctl.domain.cluster import Actor, Alert, Event, Heartbeat, Invitation, Load
from skyctl.operations.admin import drains, migrations, workers
from skyctl.operations.agents import heartbeats, invitations
from skyctl.operations.agents.registration import register
from skyctl.operations.monitor import alerts, health
from skyctl.operations.shared import clock, leadership, outages
from skyctl.operations.shared.context import Context
from skyctl.rules import tokens
from skyctl.store import db
from tests.support.helpers import TESTS, registration

STEP = 4
# No check falls on the very moment at which a time runs out.
CHECKS_LATER = 0.3
BEAT_EVERY = 10
LONGEST = 160
MANY = 6
STILL = """CREATE OR REPLACE FUNCTION skyctl_now() RETURNS timestamptz LANGUAGE sql STABLE AS
    $$ SELECT 'NOW'::timestamptz + coalesce(nullif(current_setting('skyctl.ahead', true), ''), '0')::interval $$;
    CREATE OR REPLACE FUNCTION skyctl_clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT skyctl_now() $$"""
ACTS: dict[str, Callable[[Context, UUID, Actor], object]] = {
    "stop": workers.note_stopped,
    "drain": lambda context, worker_id, actor: drains.drain(context, [worker_id], actor),
    "undrain": drains.undrain,
    "remove": workers.remove,
}


class Player:
    """Plays commands on one fleet, with a clock of its own."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._passed = 0
        self._set_by = 0
        self._fleet: dict[str, Invitation] = {}
        self._loads: dict[str, Load] = {}
        self._living: set[str] = set()
        self._down: set[str] = set()
        self._serve = uuid4()
        self._later = 0.0
        self._watch = clock.Watch(lambda: self._passed + self._later)
        self._lines: list[str] = []
        self._stop_clock()
        self._set_clock()

    def play(self, line: str) -> list[str]:
        """Play one command; return the lines that it gave."""
        verb, *words = line.split()
        names = [name for word in words if "=" not in word for name in spread(word)]
        values = dict(word.split("=") for word in words if "=" in word)
        self._lines = []
        self._set_clock()
        match verb:
            case "join":
                self._join(names, values)
            case "alive":
                self._living |= set(names)
                self._beat()
            case "dead":
                self._living -= set(names)
            case "load":
                for name in names:
                    percents = {f"{key}_percent": float(value) for key, value in values.items()}
                    self._loads[name] = self._loads[name]._replace(**percents)  # type: ignore[arg-type]
            case "serve" | "database":
                self._down = self._down - {verb} if words == ["up"] else self._down | {verb}
                self._touch()
            case "advance" | "watch":
                self._pass_time(int(words[0]), watched=verb == "watch")
            case "clock":
                self._set_by += int(words[0])
            case "pass":
                self._check()
            case "resume":
                migrations.resume(self._context, TESTS)
            case "stop" | "drain" | "undrain" | "remove":
                for name in names:
                    ACTS[verb](self._context, self.worker_id(name), TESTS)
            case _:
                raise ValueError(line)
        return self._lines

    def worker_id(self, name: str) -> UUID:
        """Return the id of a worker."""
        return self._fleet[name].worker_id

    def _stop_clock(self) -> None:
        """Let the database's clock stand still, so that nothing depends on how long playing takes."""
        with self._context.db.transaction() as tx:
            tx.exec_driver_sql(STILL.replace("NOW", f"{db.now(tx):%Y-%m-%d %H:%M:%S.%f%z}"))

    def _set_clock(self, later: float = 0) -> None:
        """Set the database's clock to the transcript's time."""
        self._later = later
        self._context.db.ahead = timedelta(seconds=self._passed + later + self._set_by)

    def _join(self, names: list[str], values: dict[str, str]) -> None:
        for name in names:
            invitation = self._fleet[name] = invitations.invite(self._context, TESTS, name)
            self._loads[name] = Load(10, 20, 30, 1)
            register(self._context, invitation.token, registration(name))
            if values:
                workers.label(self._context, invitation.worker_id, TESTS, values)

    def _beat(self) -> None:
        living = [(self._fleet[name], self._loads[name]) for name in sorted(self._living)]
        beats = [
            Heartbeat(str(invitation.worker_id), tokens.fingerprint(invitation.token), load)
            for invitation, load in living
        ]
        if beats and not self._down:
            assert asyncio.run(heartbeats.record(self._context, beats)) == [None] * len(beats)

    def _touch(self) -> None:
        if not self._down:
            self._lines += map(_event, clock.follow_back(self._context, "serve"))
            outages.touch(self._context, self._serve, "manager", 1)

    def _pass_time(self, seconds: int, *, watched: bool) -> None:
        until = self._passed + seconds
        while self._passed < until:
            before, self._passed = self._passed, min(until, self._passed + STEP)
            self._set_clock()
            self._touch()
            if self._passed // BEAT_EVERY > before // BEAT_EVERY:
                self._beat()
            if watched:
                self._check()

    def _check(self) -> None:
        if "database" in self._down:
            return
        self._set_clock(CHECKS_LATER)
        term = leadership.lead(self._context, "transcript", lambda _: True)
        assert term
        health_pass, raised = health.check(term, self._watch), alerts.raise_alerts(term)
        assert not [*health_pass.poison, *raised.poison]
        self._lines += [_event(event) for event in health_pass.events] + [_alert(alert) for alert in raised.alerts]


def spread(word: str) -> list[str]:
    """Return the names that a word stands for."""
    match = re.fullmatch(r"(\D+)(\d+)\.\.\1(\d+)", word)
    return [f"{match[1]}{number}" for number in range(int(match[2]), int(match[3]) + 1)] if match else [word]


def _event(event: Event) -> str:
    change = f" {event.from_status or ''} -> {event.to_status}" if event.to_status else ""
    return f"{event.worker_name or 'fleet'}: {event.kind}{change} ({event.reason})"


def _alert(alert: Alert) -> str:
    return f"alert {alert.kind}: {_shortened(alert.message)}"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def replay(context: Context, text: str) -> str:
    """Play the lines of a transcript that begin with `> `; return the transcript with what they gave, where like lines
    of many workers are counted."""
    player, lines = Player(context), []
    for line in text.splitlines():
        if line.startswith("> "):
            given = player.play(line[2:])
            lines += [line, *(f"    {shown}" for shown in _counted(given))]
        elif not line.startswith("    "):
            lines.append(line)
    return "\n".join(lines) + "\n"


def _counted(given: list[str]) -> list[str]:
    """Return, of lines that differ only in the worker's number, the first one and how many there are."""
    alike: dict[str, list[str]] = {}
    for line in given:
        alike.setdefault(re.sub(r"^([a-z]+)\d+:", r"\1:", line), []).append(line)
    shown: list[str] = []
    for lines in alike.values():
        shown += lines if len(lines) < MANY else [f"{len(lines)} x {lines[0]}"]
    return shown
