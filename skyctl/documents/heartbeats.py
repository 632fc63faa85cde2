"""Heartbeats as agents send them. What an agent of another version says beside is left out."""

import re

from skyctl.documents.http import Document, count, invalid, percent
from skyctl.domain.cluster import Heartbeat, ImageVolumes, Load
from skyctl.domain.text import CONTROL

LONGEST_SILENCE = 86_400
MOST_VOLUMES = 100
LONGEST_PATH = 255
_SERVICE = re.compile(r"[0-9A-Za-z]{1,64}")
_FIELD = "imageVolumes"


def parse_heartbeat(document: Document, worker_id: str, token_hash: str) -> Heartbeat:
    """A worker's heartbeat; agents that know of no engine say nothing of it. Raises ValidationError that names the
    field."""
    load = Load(
        percent(document, "cpuPercent"),
        percent(document, "memoryPercent"),
        percent(document, "diskPercent"),
        count(document, "containerCount"),
    )
    answers, silent = document.get("engineAnswers", True), document.get("engineSilentSeconds", 0)
    if not isinstance(answers, bool):
        raise invalid("engineAnswers", answers, "true or false")
    if type(silent) not in (int, float) or silent < 0:
        raise invalid("engineSilentSeconds", silent, "a number from 0")
    volumes = _image_volumes(document[_FIELD]) if _FIELD in document else None
    return Heartbeat(worker_id, token_hash, load, None if answers else min(silent, LONGEST_SILENCE), volumes)


def stored_image_volumes(stored: object) -> ImageVolumes:
    """Stored image volumes; without what is none."""
    services = stored if isinstance(stored, dict) else {}
    return {
        service: [path for path in paths if _is_path(path)]
        for service, paths in services.items()
        if isinstance(paths, list)
    }


def _image_volumes(value: object) -> ImageVolumes:
    """The volumes without a name on a worker."""
    if not isinstance(value, dict):
        raise invalid(_FIELD, value, "an object of lists of paths, by the swarm's ids of services")
    number = 0
    for service, paths in value.items():
        if not _SERVICE.fullmatch(service):
            raise invalid(_FIELD, service, "1 to 64 letters and digits, the swarm's id of a service")
        if not isinstance(paths, list):
            raise invalid(f"{_FIELD}.{service}", paths, "a list of paths")
        for path in paths:
            if not _is_path(path):
                accepted = f"a path from / of at most {LONGEST_PATH} characters, without control characters"
                raise invalid(f"{_FIELD}.{service}", path, accepted)
        number += len(paths)
    if max(number, len(value)) > MOST_VOLUMES:
        raise invalid(_FIELD, value, f"at most {MOST_VOLUMES} paths of {MOST_VOLUMES} services")
    return value


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value[:1] == "/" and len(value) <= LONGEST_PATH and not CONTROL.search(value)
