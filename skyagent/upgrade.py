"""Follow an offer of a newer agent: fetch, verify, put it on trial, end; and report on that."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Mapping
from typing import NoReturn

from skyagent import releases
from skyagent.client import Manager
from skyagent.errors import Failing, Failure, UnknownWorker, Unreachable
from skyagent.pinned import Untrusted
from skyagent.releases import BadRelease, Failed, Offer
from skyagent.settings import Settings
from skyagent.systemd import Supervisor

log = logging.getLogger(__name__)

BY_HAND = "it was not started by skyagent.launch, which would go back to it: install the newer one as this one was"
NOT_STARTED = "it could not be put on trial: see the log of skypanel-worker"


class Upgrades:
    """The releases of this host as the one that runs sees them."""

    def __init__(
        self, environ: Mapping[str, str], settings: Settings, manager: Manager, supervisor: Supervisor
    ) -> None:
        self._is_private = settings.private
        self._manager = manager
        self._supervisor = supervisor
        self._release = environ.get(releases.RELEASE)
        self._releases = releases.of(environ) if self._release is not None else None
        state = self._releases.read() if self._releases else None
        self._failed = state.failed if state else None
        self._on_trial = bool(state and state.trial and state.trial.sha256 == self._release)
        if state and state.trial and not self._on_trial:
            self._give_up(state.trial.sha256, state.trial.offered_at, NOT_STARTED)

    @property
    def metadata(self) -> dict[str, object]:
        """Return what a report says of upgrades: the release unless on trial, the last one given up, and whose are
        taken."""
        report: dict[str, object] = {}
        if not self._is_private:
            report["plainHttp"] = True
        elif self._releases and self._releases.key:
            report["releaseKey"] = base64.b64encode(self._releases.key).decode()
        if self._release and not self._on_trial:
            report["agentSha256"] = self._release
        if self._failed:
            failed = self._failed
            report["agentUpgradeFailed"] = {
                "sha256": failed.sha256,
                "offeredAt": failed.offered_at,
                "reason": failed.reason,
            }
        return report

    def accepted(self, offer: Offer | None) -> bool:
        """Take note of a heartbeat that was accepted, and follow what its answer offers; whether `metadata` may have
        changed.

        Does not return where another release is on trial from now on: whoever started this process starts that.
        """
        before = self.metadata
        if self._on_trial:
            self._confirm()
        if offer and offer.release.sha256 != self._release and not self._gave_up(offer):
            self._follow(offer)
        return self.metadata != before

    def _confirm(self) -> None:
        """The release beats: it stays. Where that cannot be noted, the next heartbeat tries again."""
        try:
            if self._releases:
                self._releases.confirm()
        except OSError as error:
            log.warning("action=release_not_kept reason=%r", str(error))
            return
        self._on_trial, self._failed = False, None
        log.info("action=upgraded sha256=%s", self._release)

    def _gave_up(self, offer: Offer) -> bool:
        failed = self._failed
        return failed is not None and (failed.sha256, failed.offered_at) == (offer.release.sha256, offer.offered_at)

    def _follow(self, offer: Offer) -> None:
        release = offer.release
        if self._releases is None:
            self._give_up(release.sha256, offer.offered_at, BY_HAND)
            return
        self._supervisor.alive()
        try:
            self._releases.check(release)
            self._releases.stage(offer, self._manager.fetch_agent(release.sha256, release.size))
        except (Unreachable, Failing, UnknownWorker) as failure:  # 404: one manager of several that is not upgraded yet
            log.warning("action=upgrade_waits sha256=%s reason=%r", release.sha256, str(failure))
        except (BadRelease, Untrusted, Failure, OSError) as error:
            self._give_up(release.sha256, offer.offered_at, str(error))
        else:
            self._restart(offer)

    def _give_up(self, sha256: str, offered_at: str, reason: str) -> None:
        """Do not try this again but by another order."""
        self._failed = Failed(sha256, offered_at, reason)
        log.error("action=upgrade_failed sha256=%s reason=%r", sha256, reason)
        try:
            if self._releases:
                self._releases.fail(self._failed)
        except OSError as error:
            log.warning("action=upgrade_failure_not_kept reason=%r", str(error))

    def _restart(self, offer: Offer) -> NoReturn:
        log.info("action=upgrading version=%s sha256=%s", offer.release.version, offer.release.sha256)
        self._supervisor.notify("STOPPING=1", f"STATUS=Upgrading to {offer.release.version}")
        os._exit(0)
