"""The engine of the manager: how workers join its swarm, and what runs there.

It is asked only when a caller needs it, and what it keeps between two calls is its connections.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from skyctl.domain.engine import EngineSpec, EngineState, EngineTask, NodeTask, Observation, ServiceVersion, SwarmJoin
from skyctl.domain.errors import EngineConflict, EngineUnavailable
from skyctl.swarm import readings, specs
from skyctl.swarm.address import with_port
from skyctl.swarm.connection import Connection, Missing
from skyctl.swarm.specs import Document

DEFAULT_HOST = "unix:///var/run/docker.sock"
_UNABLE = ("locked", "pending", "error")  # the swarm's states in which its managers cannot say how hosts join
_ATTEMPTS = 5  # at a change that somebody else's may precede each time
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

        Three requests. Services are read before tasks, so these are never older than the version that a change names.
        Raises EngineUnavailable.
        """
        nodes = [readings.node(node) for node in self._connection.get("/nodes")]
        services = self._services(service_ids)
        tasks: defaultdict[str, list[EngineTask]] = defaultdict(list)
        for task in self._tasks([service["ID"] for service in services]):
            tasks[task["ServiceID"]].append(readings.task(task))
        observed = [readings.service(service, tasks[service["ID"]]) for service in services]
        return Observation({node.id: node for node in nodes}, {service.id: service for service in observed})

    def tasks_on(self, node_id: str) -> list[NodeTask]:
        """What the engine has on a node, also of services that were removed while their containers stop.

        Two requests. Raises EngineUnavailable.
        """
        try:
            found = self._connection.get("/tasks", filters=specs.having(node=[node_id]))
        except Missing:
            return []
        tasks = [task for task in found if task.get("NodeID") == node_id]  # it takes the beginning of an id for one
        names = {each["ID"]: each["Spec"]["Name"] for each in self._services({task["ServiceID"] for task in tasks})}
        return [
            NodeTask(each, names.get(each, f"the removed service {each[:12]}"), readings.task(task))
            for task in tasks
            for each in [task["ServiceID"]]
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

    def move(self, service_id: str, version: int, node_id: str, labels: Mapping[str, str]) -> None:
        """Pin a service to a node and set these labels, the others stay: where it runs elsewhere, the new container
        runs, and is healthy, before the old one is stopped; where it runs there already, nothing is started.

        Returns at once: see `observe`. Raises EngineConflict where the service is no longer of that version, or is
        gone.
        """
        with self._of_version(service_id, version) as service:
            self._update(f"/services/{service_id}", service, specs.moved(service["Spec"], node_id, labels))

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
        """Set whether a node takes new containers (`active`), or none (`pause`). Raises EngineRefused where there is no
        such node."""
        self._change(f"/nodes/{node_id}", lambda spec: {**spec, "Availability": availability})

    def remove_node(self, node_id: str) -> None:
        """Remove a node from the swarm, whether it is down or not. Nothing where there is no such node."""
        with suppress(Missing):
            self._connection.delete(f"/nodes/{node_id}", force="true")

    def _services(self, ids: Collection[str] | None) -> list[Document]:
        if ids is None:
            return list(self._connection.get("/services"))
        if not ids:
            return []
        wanted = set(ids)
        only = {"filters": specs.having(id=sorted(wanted))} if len(wanted) <= _MOST_ASKED_BY_ID else {}
        candidates = self._connection.get("/services", **only)
        return [service for service in candidates if service["ID"] in wanted]  # it takes the beginning of an id for one

    def _tasks(self, of: list[str]) -> list[Document]:
        """The tasks of these services, and perhaps of others."""
        if not of:
            return []
        if len(of) <= _MOST_ASKED_BY_ID:
            with suppress(Missing):  # it refuses all of them where one service was removed a moment ago
                return list(self._connection.get("/tasks", filters=specs.having(service=of)))
        return list(self._connection.get("/tasks"))

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
