"""What the swarm runs, whoever deployed it, as it is printed. No I/O."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from skyctl.cli.views import formats
from skyctl.documents.http import Document
from skyctl.domain.states import ServiceMode
from skyctl.domain.text import printable


def services_table(document: Document, *, wide: bool) -> list[Any]:
    """Every service of the swarm."""
    services = document["services"]
    if not services:
        return [Text("The swarm has no services.")]
    more = ("PORTS", "MOUNTS", "STACK", "SWARM ID") if wide else ()
    table = formats.plain_table("NAME", "MANAGED", "RUNS", "WHERE", "IMAGE", *more, bars=(4,), wide=wide)
    for service in services:
        style = "green" if service["running"] >= service["wanted"] else "red"
        cells: list[Any] = [
            Text(printable(service["name"])),
            "yes" if service["managed"] else "no",
            Text(f"{service['running']} of {service['wanted']}{_everywhere(service)}", style=style),
            Text(printable(_places_text(service))),
            Text(printable(service["image"])),
        ]
        if wide:
            ports, mounts = ", ".join(service["ports"]), ", ".join(service["mounts"])
            told = (ports, mounts, service["stack"], service["swarmServiceId"])
            cells += [Text(printable(value or "-")) for value in told]
        table.add_row(*cells)
    total = f"{len(services)} service{'s' * (len(services) != 1)}"
    return [table, Text(total, style="dim")]


def service_details(service: Document) -> list[Any]:
    """Everything about one service that is not under management."""
    rows: list[tuple[str, Any]] = [
        ("Name", service["name"]),
        ("Swarm id", service["swarmServiceId"]),
        ("Managed", "no: see `skyctl services adopt`"),
        ("Stack", service["stack"] or "-"),
        ("Image", service["image"]),
        *running_rows(service),
        ("Ports", ", ".join(service["ports"]) or "-"),
        ("Variables", ", ".join(service["variables"]) or "-"),
        *([("Labels", labels_text(service["labels"]))] if "labels" in service else []),
    ]
    return [formats.details(rows)]


def running_rows(service: Document) -> list[tuple[str, Any]]:
    """What runs of a service, where, and what the swarm keeps to."""
    update, message = service["update"], service["updateMessage"]
    return [
        ("Runs", f"{service['running']} of {service['wanted']} run{_everywhere(service)}"),
        ("Where", _places_text(service)),
        ("Mounts", ", ".join(service["mounts"]) or "-"),
        ("Secrets", ", ".join([*service["secrets"], *service["configs"]]) or "-"),
        ("Constraints", ", ".join(service["constraints"]) or "-"),
        ("Last update", f"{update or ''}: {message}" if message else update or "-"),
        *([("Rollback", service["rollback"])] if service["rollback"] else []),
    ]


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels as people write them; a dash for none."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items())) or "-"


def _everywhere(service: Document) -> str:
    return " on each node" if service["mode"] in (ServiceMode.GLOBAL, ServiceMode.GLOBAL_JOB) else ""


def _places_text(service: Document) -> str:
    return ", ".join(map(_place_text, service["places"])) or "-"


def _place_text(place: Document) -> str:
    """A worker, else the hostname of a node that is nobody's, with the number of containers where there are more."""
    name = place["workerName"] or f"{place['hostname']} (no worker)"
    return f"{name} x {place['containers']}" if place["containers"] > 1 else name


def runs_text(runs: Document) -> str:
    """What runs on a worker by service, and how many containers its agent counted last beside these."""
    if runs["unknown"]:
        return f"not known: {runs['unknown']}"
    names = [
        f"{service['name']} x {service['containers']}" if service["containers"] > 1 else service["name"]
        for service in runs["services"]
    ]
    beside = [f"{runs['outside']} outside of Swarm, by its last heartbeat"] if runs["outside"] else []
    return "; ".join([", ".join(names) or "no service", *beside])
