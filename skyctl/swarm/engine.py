"""The engine of the manager: how workers join its swarm, and what runs there.

It is asked only when a caller needs it, and what it keeps between two calls is its connections.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from skyctl.domain.engine import (
    EngineSpec,
    EngineState,
    EngineTask,
    NodeTask,
    Observation,
    ServiceDocument,
    ServiceVersion,
    SwarmJoin,
)
from skyctl.domain.errors import EngineConflict, EngineUnavailable
from skyctl.domain.logs import LogLine, LogOptions
from skyctl.swarm import logs, readings, specs
from skyctl.swarm.address import with_port
from skyctl.swarm.connection import Connection, Missing
from skyctl.swarm.specs import Document

DEFAULT_HOST = "unix:///var/run/docker.sock"
_UNABLE = ("locked", "pending", "error")  # the swarm's states in which its managers cannot say how hosts join
_ATTEMPTS = 5  # at a change that somebody else's may precede each time
_OF_THE_SWARM = specs.having(scope=["swarm"])
_MOST_ASKED_BY_ID = 100  # the engine looks each one up by itself; beyond that, one listing of all is less work for it


class SwarmEngine:
    """The Docker engine beside the manager. Without `docker_host` it is the local one, which need not exist.

    `advertise_address` is where workers reach the swarm's manager (`host` or `host:port`), if not where the swarm says.
    `encrypts`: the networks it creates are encrypted between nodes; a kernel without IPsec (ESP) would let nothing
    through. Threads may share it.
    """

    def __init__(self, docker_host: str | None, advertise_address: str | None, *, encrypts: bool = True) -> None:
        self._docker_host = docker_host
        self._advertise_address = advertise_address
        self._encrypts = encrypts
        self._connection = Connection(docker_host or DEFAULT_HOST)

    def worker_join(self) -> SwarmJoin | None:
        """The address and token with which a host joins this swarm as a worker; None without a local engine, or when it
        manages no swarm.

        Raises EngineUnavailable when a configured engine does not answer, or a manager cannot tell its join token, as
        while its swarm is locked or most of its managers are away.
        """
        failure = "does not tell the swarm's join token"
        try:
            self._connection.open()
        except EngineUnavailable:
            if self._docker_host is None:
                return None
            raise
        swarm = self._connection.get("/info", failure=failure)["Swarm"]
        if not swarm["ControlAvailable"]:
            if swarm["LocalNodeState"] in _UNABLE:
                why = swarm.get("Error") or f"its swarm is {swarm['LocalNodeState']}"
                raise self._connection.unavailable(failure, why)
            return None
        token = self._connection.get("/swarm", failure=failure)["JoinTokens"]["Worker"]
        address = self._advertise_address
        if not address:
            node = self._connection.get(f"/nodes/{swarm['NodeID']}", failure=failure)
            address = node["ManagerStatus"]["Addr"]
        return SwarmJoin(with_port(address), token)

    def state(self) -> EngineState | None:
        """The engine's description of itself; None where none was set and there is no local one.

        Raises EngineUnavailable where there is one that does not answer.
        """
        if self._docker_host is None and not Path(DEFAULT_HOST.removeprefix("unix://")).exists():
            return None
        info = self._connection.get("/info", failure="does not say what it is")
        swarm = info["Swarm"]
        return EngineState(
            info["ServerVersion"],
            swarm["LocalNodeState"],
            swarm["ControlAvailable"],
            trouble=swarm.get("Error") or "",
            node_id=swarm.get("NodeID") or "",
        )

    def observe(self, service_ids: Collection[str] | None = None) -> Observation:
        """The nodes, and these services (None: all) with their tasks; those that the engine does not know are missing.

        Three requests, and one more where not every node has the same plugins for networks. Services are read before
        tasks, so these are never older than the version that a change names. Raises EngineUnavailable.
        """
        nodes = [readings.node(node) for node in self._connection.get("/nodes")]
        services = self._services(service_ids)
        tasks: defaultdict[str, list[EngineTask]] = defaultdict(list)
        for service_id, task in self._tasks("service", [service["ID"] for service in services]):
            tasks[service_id].append(task)
        drivers = self._network_drivers() if services and readings.networks_differ(nodes) else {}
        observed = [readings.service(service, tasks[service["ID"]], drivers) for service in services]
        return Observation({node.id: node for node in nodes}, {service.id: service for service in observed})

    def tasks_on(self, node_ids: Collection[str]) -> list[NodeTask]:
        """What the engine has on these nodes, also of services that were removed while their containers stop.

        Two requests. Raises EngineUnavailable.
        """
        there = [each for each in self._tasks("node", node_ids) if each[1].node_id in node_ids]
        names = {each["ID"]: each["Spec"]["Name"] for each in self._services({service_id for service_id, _ in there})}
        return [
            NodeTask(service_id, names.get(service_id, f"the removed service {service_id[:12]}"), task)
            for service_id, task in there
        ]

    def find(self, name: str) -> ServiceVersion | None:
        """Return the id, the version and the labels of the service of this name; None where there is none."""
        try:
            service = self._connection.get(f"/services/{name}")
        except Missing:
            return None
        if service["Spec"]["Name"] != name:
            return None  # the engine takes the beginning of an id for one
        return ServiceVersion(service["ID"], service["Version"]["Index"], service["Spec"].get("Labels") or {})

    def digest(self, image: str) -> str:
        """Return the digest that an image has in its registry now, asked with the credentials of whoever runs this.

        Raises EngineUnavailable or EngineRefused, with the engine's or the registry's words.
        """
        path, failure = f"/distribution/{image}/json", f"does not learn the digest of {image}"
        return str(self._connection.get_of_registry(path, image, failure=failure)["Descriptor"]["digest"])

    def deploy(self, spec: EngineSpec, version: int | None) -> str:
        """Change the service of the spec's name, which is of this version; create it, and its network where that is
        missing, where `version` is None. Return the service's id.

        Repeating it does no harm. Raises EngineConflict where the service is of another version, is gone, or exists
        although it is to be created.
        """
        document = specs.service(spec, self._network(spec))
        if version is None:
            return str(self._connection.post("/services/create", document, image=spec.image)["ID"])
        with self._of_version(spec.name, version) as service:
            self._update(f"/services/{service['ID']}", service, document, image=spec.image)
            return str(service["ID"])

    def move(
        self, service_id: str, version: int, node_id: str, labels: Mapping[str, str], order: str = "start-first"
    ) -> None:
        """Pin a service to a node and set these labels, the others stay: where it runs elsewhere, the new container
        runs, and is healthy, before the old one is stopped (by the order `stop-first`, after it has); where it runs
        there already, nothing is started.

        Returns at once: see `observe`. Raises EngineConflict where the service is no longer of that version, or is
        gone.
        """
        with self._of_version(service_id, version) as service:
            spec = service["Spec"]
            restart = self._restart(service_id, node_id) if specs.is_deployed_by_us(spec) else None
            self._update(f"/services/{service_id}", service, specs.moved(spec, node_id, labels, order, restart))

    def read(self, service_id: str) -> ServiceDocument | None:
        """Return the whole specification of a service, with what this version does not know; None where there is no
        such service."""
        try:
            service = self._connection.get(f"/services/{service_id}")
        except Missing:
            return None
        if service["ID"] != service_id:
            return None  # the engine takes the beginning of an id for one, and a name
        return ServiceDocument(service["Version"]["Index"], service["Spec"], service.get("PreviousSpec"))

    def write(self, service_id: str, version: int, spec: Document) -> None:
        """Replace the whole specification of a service, which is of this version.

        Returns at once: see `observe`. Raises EngineConflict where the service is no longer of that version, or is
        gone.
        """
        with self._of_version(service_id, version) as service:
            self._update(f"/services/{service_id}", service, specs.with_placement(spec))

    def logs(self, service_id: str, options: LogOptions) -> Iterator[LogLine]:
        """The lines that a service's containers wrote; where they are followed, without end. Raises EngineRefused where
        there is no such service."""
        container = self._connection.get(f"/services/{service_id}")["Spec"]["TaskTemplate"].get("ContainerSpec") or {}
        asked = {"stdout": "1", "stderr": "1", "timestamps": "1", "details": "1"}
        asked |= {"tail": "all" if options.tail is None else str(options.tail)}
        asked |= {} if options.since is None else {"since": str(options.since)}
        asked |= {"follow": "1"} if options.follow else {}
        parts = self._connection.stream(f"/services/{service_id}/logs", **asked)
        return logs.lines(parts, framed=not container.get("TTY"))

    def stop(self, service_id: str) -> None:
        """Stop a service's container and keep the service. Do nothing where there is no such service.

        Raises EngineRefused for one that has no number of containers, EngineConflict where others keep changing it.
        """
        with suppress(Missing):
            self._change(f"/services/{service_id}", specs.without_container)

    def remove(self, service_id: str) -> None:
        """Remove a service. Nothing where there is no such service."""
        with suppress(Missing):
            self._connection.delete(f"/services/{service_id}")

    def set_availability(self, node_id: str, availability: str) -> None:
        """Set whether a node takes new containers (`active`), none (`pause`), or have what it has stopped, too
        (`drain`). Raises EngineRefused where there is no such node."""
        self._change(f"/nodes/{node_id}", lambda spec: {**spec, "Availability": availability})

    def remove_node(self, node_id: str) -> None:
        """Remove a node from the swarm, whether it is down or not. Nothing where there is no such node."""
        with suppress(Missing):
            self._connection.delete(f"/nodes/{node_id}", force="true")

    def _services(self, ids: Collection[str] | None) -> list[Document]:
        if ids is None:
            return list(self._connection.get("/services", lean=readings.lean_service))
        if not ids:
            return []
        wanted = set(ids)
        few = len(wanted) <= _MOST_ASKED_BY_ID
        candidates = (
            self._connection.get("/services", lean=readings.lean_service, filters=specs.having(id=sorted(wanted)))
            if few
            else self._connection.get("/services", lean=readings.lean_service)
        )
        return [service for service in candidates if service["ID"] in wanted]  # it takes the beginning of an id for one

    def _tasks(self, kind: Literal["service", "node"], of: Collection[str]) -> list[tuple[str, EngineTask]]:
        """The tasks of these services or nodes, and perhaps of others, each with the id of its service."""
        if not of:
            return []
        if len(of) <= _MOST_ASKED_BY_ID:
            with suppress(Missing):  # it refuses all of them where one was removed a moment ago
                asked = specs.having(**{kind: sorted(of)})
                return list(self._connection.get("/tasks", lean=readings.lean_task, filters=asked))
        return list(self._connection.get("/tasks", lean=readings.lean_task))

    def _restart(self, service_id: str, node_id: str) -> Document | None:
        """The restart policy for what we deployed once it is on a node: that of its container which is there already,
        since another one would replace it."""
        tasks = self._connection.get("/tasks", filters=specs.having(service=[service_id]))
        there = [task for task in tasks if task.get("NodeID") == node_id and task["DesiredState"] == "running"]
        return there[-1]["Spec"].get("RestartPolicy") if there else specs.RESTART

    def _network_drivers(self) -> dict[str, str]:
        """The plugin by which each network of the swarm is made, by the network's id."""
        return {each["Id"]: each["Driver"] for each in self._connection.get("/networks", filters=_OF_THE_SWARM)}

    def _network(self, spec: EngineSpec) -> str:
        """The id of the service's network, created where it is missing. Who else creates it at this moment is as
        good."""
        path = f"/networks/{spec.network}"
        with suppress(Missing):
            return str(self._connection.get(path, scope="swarm")["Id"])
        with suppress(EngineConflict):
            self._connection.post("/networks/create", specs.network(spec, encrypted=self._encrypts))
        return str(self._connection.get(path, scope="swarm")["Id"])

    @contextmanager
    def _of_version(self, reference: str, version: int) -> Iterator[Document]:
        """Read the service of this id or name, to be changed within the block.

        Raises EngineConflict where it is not of this version, or is gone, before the block or within it.
        """
        try:
            service = self._connection.get(f"/services/{reference}")
            if (now := service["Version"]["Index"]) != version:
                raise EngineConflict(f"the service {service['Spec']['Name']} is of version {now} by now, not {version}")
            yield service
        except Missing as error:
            raise EngineConflict(error.message) from error

    def _change(self, path: str, changed: Callable[[Document], Document], attempts: int = _ATTEMPTS) -> None:
        """Change what is there, also where somebody else changes it at the same moment."""
        document = self._connection.get(path)
        try:
            self._update(path, document, changed(document["Spec"]))
        except EngineConflict:
            if attempts == 1:
                raise
            self._change(path, changed, attempts - 1)

    def _update(self, path: str, document: Document, spec: Document, *, image: str | None = None) -> None:
        """Write back a specification that was read, if nobody has changed it meanwhile."""
        if spec != document["Spec"]:
            self._connection.post(f"{path}/update", spec, image=image, version=str(document["Version"]["Index"]))
