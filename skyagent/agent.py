"""The loop: measure, register where something is new, report, wait; and one line of log at each change of state."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import NoReturn

from skyagent import clock
from skyagent.backoff import REFUSED, jittered, retry_delay
from skyagent.client import Manager
from skyagent.connections import Http
from skyagent.errors import Failing, Failure, Refused, UnknownWorker, Unreachable
from skyagent.metrics import EngineWatch, Host
from skyagent.settings import Settings
from skyagent.status import StatusFile
from skyagent.systemd import Supervisor
from skyagent.tokens import Tokens
from skyagent.upgrade import Upgrades
from skyagent.volumes import VolumeWatch

log = logging.getLogger(__name__)

# The engine is asked this long before each heartbeat; before the first one it is also what CPU use is measured over.
LEAD_SECONDS = 1.0
REQUEST_SECONDS = 10.0


class Agent:
    """One worker's reporter. It holds what the manager was told last and how the last report went."""

    def __init__(self, settings: Settings, supervisor: Supervisor, environ: Mapping[str, str]) -> None:
        # A report takes no longer than this, which leaves the watchdog's period room for two of them.
        timeout = min(REQUEST_SECONDS, supervisor.watchdog_seconds / 4 or REQUEST_SECONDS)
        http = Http(settings, timeout)
        self._settings = settings
        self._supervisor = supervisor
        self._tokens = Tokens(settings)
        self._manager = Manager(http, settings, self._tokens, timeout)
        self._engine = EngineWatch(http, timeout)
        self._volumes = VolumeWatch(http, timeout)
        self._host = Host(self._manager.local_address, self._engine, self._volumes)
        self._upgrades = Upgrades(environ, settings, self._manager, supervisor)
        self._status = StatusFile(environ, settings)
        self._fraction = random.SystemRandom().random
        self._registered: dict[str, object] = {}
        self._rejected: tuple[dict[str, object], str] = ({}, "")
        self._clock_lead = 0.0  # as it was when the manager was last told what the clock shows
        self._failures = 0
        self._state = ("starting", "")
        self._engine_known: bool | None = None
        self._engine_answered = False

    def run(self) -> NoReturn:
        """Report for ever."""
        if not self._settings.private:
            log.warning(
                "action=plain_http manager=%s reason='no upgrade and no new token is taken from it: anybody on the way "
                "could be the sender; https would do'",
                self._settings.api_url,
            )
        self._supervisor.notify("READY=1", f"STATUS=Starting; reports to {self._settings.api_url}")
        delay = LEAD_SECONDS
        while True:
            lead = min(delay, LEAD_SECONDS)
            self._supervisor.pause(delay - lead)
            self._engine.ask()
            if self._engine.latest.answers:  # as of the look before; who is silent is not asked for more
                self._volumes.ask()
            self._supervisor.pause(lead)
            delay = self._round()

    def _round(self) -> float:
        """Report once; returns the seconds until the next report."""
        try:
            seconds = self._report()
        except Failure as failure:
            return self._failed(failure)
        self._accepted()
        return jittered(seconds, self._fraction())

    def _report(self) -> float:
        """Register where something is new, then beat; returns the seconds until the next heartbeat. Raises Failure."""
        self._note_engine()
        self._register(self._registration())
        load = self._host.load()
        self._supervisor.alive()
        answer = self._manager.heartbeat(load)
        seconds = answer.next_seconds or self._settings.interval_seconds
        log.debug("action=heartbeat load=%s next_seconds=%g", load, seconds)
        self._status.accepted(load, seconds)
        self._tokens.adopt(answer.new_token)
        if self._upgrades.accepted(answer.offer):
            self._register(self._registration())
        return seconds

    def _registration(self) -> dict[str, object]:
        registration = self._host.registration()
        return {
            **registration,
            "metadata": {**registration["metadata"], **self._tokens.metadata, **self._upgrades.metadata},
        }

    def _register(self, registration: dict[str, object]) -> None:
        """Say what this host is, if that is news; news that the manager rejects, or has no time for, must not silence a
        worker that it knows, be it by the agent before this one.

        What the clock shows goes along and is no news by itself; that it was set is.
        """
        clock_lead = clock.lead()
        if registration == self._registered and not clock.has_jumped(self._clock_lead, clock_lead):
            return
        self._supervisor.alive()
        try:
            new_token = self._manager.register(registration)
        except (Failing, Unreachable) as failure:
            if not (self._registered or self._status.is_known(registration)):
                raise
            rejected = (registration, str(failure))
            if rejected != self._rejected:
                log.warning("action=registration_rejected reason=%r", str(failure))
            self._rejected = rejected
            return
        self._tokens.adopt(new_token)
        self._registered, self._clock_lead = registration, clock_lead
        self._status.registered(registration)
        log.info("action=registered worker=%s address=%s", self._settings.worker_id, registration["ipAddress"])

    def _failed(self, failure: Failure) -> float:
        """Take note of a report that was not accepted; returns the seconds until the next one."""
        self._failures += 1
        if isinstance(failure, (UnknownWorker, Refused)):
            self._registered = {}  # whoever is not let in says who it is, so that the manager can say why not
        if isinstance(failure, Refused):
            delay = jittered(REFUSED, self._fraction())
        else:
            delay = retry_delay(self._failures, self._fraction(), failure.retry_after_seconds)
        self._status.failed(failure.action, str(failure), self._failures, delay)
        reason = str(failure)
        detail = f"retry_seconds={delay:.1f} failures={self._failures} reason={reason!r}"
        self._enter(failure.action, reason, detail, logging.ERROR if isinstance(failure, Refused) else logging.WARNING)
        return delay

    def _accepted(self) -> None:
        self._enter("accepted", "", f"manager={self._settings.api_url} failures={self._failures}", logging.INFO)
        self._failures = 0

    def _enter(self, state: str, reason: str, detail: str, level: int) -> None:
        """Say a change of state, or of the reason for it, at `level`, and to the supervisor; what only repeats is worth
        saying if it is an error."""
        changed = (state, reason) != self._state
        log.log(level if changed or level == logging.ERROR else logging.DEBUG, "action=%s %s", state, detail)
        if changed:
            self._supervisor.notify(f"STATUS={state} {detail}")
        self._state = (state, reason)

    def _note_engine(self) -> None:
        """Say it when the Docker engine begins to answer, or ceases to. Where this process may ask it no longer, as
        when Docker's group was made anew, it ends: its unit gives the next one the present group."""
        engine = self._engine.latest
        known = not engine.trouble
        if known and not self._engine_known:
            log.info("action=docker_answers containers=%d version=%r", engine.containers, engine.version)
        if not known and self._engine_known is not False:
            log.warning("action=docker_away containers=%d reason=%r", engine.containers, engine.trouble)
        self._engine_known = known
        self._engine_answered = self._engine_answered or known
        if engine.denied and self._engine_answered:
            log.error("action=engine_denied reason=%r", engine.trouble)
            raise SystemExit(1)
