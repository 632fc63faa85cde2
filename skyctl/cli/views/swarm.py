"""What the swarm runs, whoever deployed it, as it is printed. No I/O."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from skyctl.cli.views import formats
from skyctl.documents import manifest
from skyctl.domain.cluster import Worker
from skyctl.domain.engine import Occupant
from skyctl.domain.text import printable
from skyctl.domain.workloads import Place, SwarmService


def services_table(services: Sequence[SwarmService], *, wide: bool) -> list[Any]:
    """Every service of the swarm."""
    if not services:
        return [Text("The swarm has no services.")]
    more = ("PORTS", "MOUNTS", "STACK", "SWARM ID") if wide else ()
    table = formats.plain_table("NAME", "MANAGED", "RUNS", "WHERE", "IMAGE", *more, bars=(4,))
    for service in services:
        engine = service.engine
        mode = " on each node" if engine.replicas is None else ""
        style = "green" if service.running >= service.wanted else "red"
        cells: list[Any] = [
            Text(printable(engine.name)),
            "yes" if service.is_managed else "no",
            Text(f"{service.running} of {service.wanted}{mode}", style=style),
            Text(printable(", ".join(map(place_text, service.places)) or "-")),
            Text(printable(engine.image)),
        ]
        if wide:
            ports = ", ".join(manifest.port_text(port) for port in engine.ports)
            cells += [
                Text(printable(value or "-")) for value in (ports, ", ".join(engine.mounts), engine.stack, engine.id)
            ]
        table.add_row(*cells)
    total = f"{len(services)} service{'s' * (len(services) != 1)}"
    return [table, Text(total, style="dim")]


def place_text(place: Place) -> str:
    """A worker, else the hostname of a node that is nobody's, with the number of containers where there are more."""
    name = place.worker_name or f"{place.hostname} (no worker)"
    return f"{name} x {place.containers}" if place.containers > 1 else name


def occupants_text(worker: Worker, there: Sequence[Occupant]) -> str:
    """What runs on a worker by service, and how many containers its agent counted last beside these."""
    if not worker.confirmed_node:
        claims = worker.swarm_node_id or worker.swarm_node_claim
        return f"not known: {'its node is not confirmed' if claims else 'it is in no swarm'}"
    names = [
        f"{occupant.name} x {occupant.containers}" if occupant.containers > 1 else occupant.name for occupant in there
    ]
    outside = (worker.container_count or 0) - sum(occupant.counted for occupant in there)
    beside = [f"{outside} outside of Swarm, by its last heartbeat"] if outside > 0 else []
    return "; ".join([", ".join(names) or "no service", *beside])
