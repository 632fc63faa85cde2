"""What the swarm's containers here keep in volumes without a name: an image that declares a volume has the engine make
one for each container, and no service says so."""

from __future__ import annotations

import json
import logging
import re
import threading

from skyagent.client import SERVICE_LABEL, swarm_containers
from skyagent.connections import Http
from skyagent.errors import EngineAway

log = logging.getLogger(__name__)

# A manager takes no more, and no longer ones; and it would refuse the whole of a report that is too large.
MOST_VOLUMES = 100
LONGEST_PATH = 255
MOST_BYTES = 15_000
_SERVICE = re.compile(r"[0-9A-Za-z]{1,64}")
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")

Volumes = dict[str, list[str]]
"""The paths at which containers have such volumes, by the swarm's id of their service."""


class VolumeWatch:
    """Asks the engine for its containers in a thread of its own: this may take long where there are many, and must
    delay nothing, nor make an engine count as silent that answers else."""

    def __init__(self, http: Http, timeout_seconds: float) -> None:
        self._http = http
        self._timeout_seconds = timeout_seconds
        self._thread: threading.Thread | None = None
        self._trouble = ""
        self._left = 0
        self.latest: Volumes | None = None

    def ask(self) -> None:
        """Begin to look, unless an earlier look still hangs; `latest` changes when there is an answer."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look, name="volumes", daemon=True)
            self._thread.start()

    def _look(self) -> None:
        try:
            found = anonymous_volumes(swarm_containers(self._http, self._timeout_seconds))
        except EngineAway as error:
            if str(error) != self._trouble:
                log.warning("action=image_volumes_unknown reason=%r", str(error))
            self._trouble = str(error)
            return
        self._trouble = ""
        self.latest, left = _fitting(found)
        if left and left != self._left:
            log.warning("action=image_volumes_cut reason='%d of %d are not told: too many'", left, len(found))
        self._left = left


def _fitting(found: set[tuple[str, str]]) -> tuple[Volumes, int]:
    """As many of the volumes as fit into a report, and how many do not."""
    told: Volumes = {}
    number, size = 0, 0
    for service, path in sorted(found):
        size += len(json.dumps({service: [path]}))
        if number == MOST_VOLUMES or size > MOST_BYTES:
            break
        told.setdefault(service, []).append(path)
        number += 1
    return told, len(found) - number


def anonymous_volumes(containers: list[object]) -> set[tuple[str, str]]:
    """The volumes without a name of containers of the swarm: the service's id, and the path within the container."""
    found = set()
    for container in containers:
        document = container if isinstance(container, dict) else {}
        labels, mounts = document.get("Labels"), document.get("Mounts")
        service = labels.get(SERVICE_LABEL) if isinstance(labels, dict) else None
        if isinstance(service, str) and _SERVICE.fullmatch(service) and isinstance(mounts, list):
            found |= {(service, path) for path in map(_anonymous_path, mounts) if path}
    return found


def _anonymous_path(mount: object) -> str:
    """Where a container has a volume without a name; empty where a mount is none, or no path that can be told."""
    if not isinstance(mount, dict) or mount.get("Type") != "volume":
        return ""
    name, path = mount.get("Name"), mount.get("Destination")
    if not (isinstance(name, str) and _ANONYMOUS.fullmatch(name) and isinstance(path, str)):
        return ""
    # of the characters that a manager refuses, these alone are printable: the tags
    is_told = path.startswith("/") and len(path) <= LONGEST_PATH and path.isprintable() and max(path) < "\U000e0000"
    return path if is_told else ""
