"""The agent's last report and answer: a file that it keeps while it runs, and `skyagent status`, which prints it."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from skyagent import __version__, releases
from skyagent.errors import StatusError
from skyagent.settings import Settings

log = logging.getLogger(__name__)

FOLDER = "/run/skypanel-worker"
NEVER = "see: systemctl status skypanel-worker"


class StatusFile:
    """The file, rewritten at each change; without a runtime folder from the service manager there is none."""

    def __init__(self, environ: Mapping[str, str], settings: Settings) -> None:
        self._path = path_of(environ) if environ.get("RUNTIME_DIRECTORY") else None
        self._known_as = _registered_before(self._path, settings)
        self._document: dict[str, Any] = {
            "workerId": settings.worker_id,
            "manager": settings.api_url,
            "agentVersion": __version__,
            "agentSha256": environ.get(releases.RELEASE, ""),
            "pid": os.getpid(),
            "startedAt": _now(),
            "state": "starting",
            "reason": "",
            "failures": 0,
            "nextReportSeconds": 0,
            "lastHeartbeat": None,
            "registered": None,
        }
        self._keep({})

    def accepted(self, load: Mapping[str, object], next_seconds: float) -> None:
        """Note a heartbeat that was accepted, and when the manager wants the next one."""
        sent = {"at": _now(), "load": load}
        self._keep(
            {"state": "accepted", "reason": "", "failures": 0, "nextReportSeconds": next_seconds, "lastHeartbeat": sent}
        )

    def failed(self, state: str, reason: str, failures: int, next_seconds: float) -> None:
        """Note a report that was not accepted."""
        self._keep(
            {"state": state, "reason": reason, "failures": failures, "nextReportSeconds": round(next_seconds, 1)}
        )

    def registered(self, registration: Mapping[str, object]) -> None:
        """Note what the manager accepted of this host."""
        self._keep({"registered": {"at": _now(), **registration}})

    def is_known(self, registration: Mapping[str, Any]) -> bool:
        """Tell whether the manager let this host in, as this worker and at this place, since it was booted."""
        return bool(self._known_as) and _place(registration) == self._known_as

    def _keep(self, news: Mapping[str, object]) -> None:
        """Lay news over what is known. Where it cannot be written, nothing else suffers."""
        self._document.update(news)
        if self._path is None:
            return
        new = self._path.with_name("status.json.new")
        try:
            new.write_text(json.dumps(self._document), "utf-8")
            new.replace(self._path)
        except OSError as error:
            log.debug("action=status_failed reason=%r", str(error))


def _registered_before(path: Path | None, settings: Settings) -> list[object]:
    """The place at which the agent before this one registered as the same worker; empty where it is not known."""
    try:
        document = read(path) if path else {}
    except StatusError:
        return []
    registered = document.get("registered")
    is_ours = (document.get("workerId"), document.get("manager")) == (settings.worker_id, settings.api_url)
    return _place(registered) if is_ours and isinstance(registered, dict) else []


def _place(registration: Mapping[str, Any]) -> list[object]:
    """What distinguishes a host from its copies; empty where its boot is not known. The runtime folder, where the last
    one is kept, does not outlive the boot, but may have been copied."""
    metadata = registration.get("metadata")
    said = metadata if isinstance(metadata, dict) else {}
    place = [said.get("machineId"), said.get("bootId"), registration.get("hostname"), registration.get("ipAddress")]
    return place if all(place) else []


def path_of(environ: Mapping[str, str]) -> Path:
    """The file, in the runtime folder that the service manager names, else in that of the unit."""
    return Path(environ.get("RUNTIME_DIRECTORY") or FOLDER, "status.json")


def read(path: Path) -> dict[str, Any]:
    """Read the agent's status file. Raises StatusError."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise StatusError("the agent does not run on this host, or has never run", NEVER) from None
    except PermissionError:
        raise StatusError(f"{path} cannot be read: Permission denied", "run it as root: sudo skyagent status") from None
    except (OSError, ValueError) as error:
        raise StatusError(f"{path} cannot be read: {error}", NEVER) from None
    if not isinstance(document, dict):
        raise StatusError(f"{path} holds no JSON object", NEVER)
    return document


def show(environ: Mapping[str, str], *, as_json: bool) -> None:
    """Print it. Raises StatusError."""
    document = read(path_of(environ))
    document["running"] = _runs(document.get("pid"))
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    for name, value in _rows(document):
        sys.stdout.write(f"{name:16}{_printable(str(value))}\n")


def _rows(document: Mapping[str, Any]) -> list[tuple[str, object]]:
    heartbeat, registered = document.get("lastHeartbeat") or {}, document.get("registered") or {}
    state, failures, wait = document.get("state"), document.get("failures"), document.get("nextReportSeconds")
    load = ", ".join(f"{name} {value}" for name, value in heartbeat.get("load", {}).items())
    again = f"{failures} failed in a row, the next {wait} s after the last" if failures else f"the next after {wait} s"
    runs = f"yes, process {document.get('pid')}" if document["running"] else "no; this is what it said last"
    return [
        ("Running", f"{runs}, since {document.get('startedAt')}" if document["running"] else runs),
        ("State", f"{state}: {document['reason']}" if document.get("reason") else state),
        ("Reports", again),
        ("Last heartbeat", f"{heartbeat['at']}, accepted" if heartbeat else "none was accepted since it started"),
        ("Load sent", load or "-"),
        (
            "Registered",
            f"{registered['at']} as {registered['hostname']}, {registered['ipAddress']}" if registered else "-",
        ),
        ("Worker", document.get("workerId")),
        ("Manager", document.get("manager")),
        ("Agent", f"{document.get('agentVersion')} {document.get('agentSha256') or ''}".rstrip()),
    ]


def _printable(text: str) -> str:
    """Make the manager's text safe to print: it may hold anything, and a terminal would obey some of it."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _runs(pid: object) -> bool:
    """Tell whether the process that wrote the file is still there."""
    return isinstance(pid, int) and Path(f"/proc/{pid}").exists()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
