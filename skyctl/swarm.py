"""Docker Swarm through the docker SDK, and nothing else.

The engine is asked only when a caller needs it; every request has a time limit, and the SDK's errors end here.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import docker
from docker.errors import APIError, DockerException

from skyctl.errors import EngineUnavailable
from skyctl.model import EngineState, SwarmJoin

DEFAULT_HOST = "unix:///var/run/docker.sock"
_PORT = 2377
_TIMEOUT_SECONDS = 5
# A request that times out or is cut off is an OSError of the HTTP library; what the engine refuses is the SDK's own.
_FAILURES = (DockerException, OSError)


class SwarmEngine:
    """The Docker engine beside the manager. Without `docker_host` it is the local one, which need not exist.

    `advertise_address` is where workers reach the swarm's manager (`host` or `host:port`), if not where the swarm says.
    """

    def __init__(self, docker_host: str | None, advertise_address: str | None) -> None:
        self._docker_host = docker_host
        self._advertise_address = advertise_address

    def worker_join(self) -> SwarmJoin | None:
        """What a host needs to join this swarm as a worker; None without a local engine, or when it manages no swarm.

        Raises EngineUnavailable when a configured engine does not answer, or a manager cannot tell its join token.
        """
        try:
            client = self._connect()
        except EngineUnavailable:
            if self._docker_host is None:
                return None
            raise
        with closing(client), self._wrapped("does not tell the swarm's join token"):
            swarm = client.info()["Swarm"]
            if not swarm["ControlAvailable"]:
                return None
            token = client.api.inspect_swarm()["JoinTokens"]["Worker"]
            address = self._advertise_address or client.api.inspect_node(swarm["NodeID"])["ManagerStatus"]["Addr"]
        return SwarmJoin(with_port(address), token)

    def state(self) -> EngineState | None:
        """What the engine says of itself; None where none was set and there is no local one.

        Raises EngineUnavailable where there is one that does not answer.
        """
        if self._docker_host is None and not Path(DEFAULT_HOST.removeprefix("unix://")).exists():
            return None
        client = self._connect()
        with closing(client), self._wrapped("does not say what it is"):
            info = client.info()
        swarm = info["Swarm"]
        return EngineState(
            info["ServerVersion"], swarm["LocalNodeState"], swarm["ControlAvailable"], trouble=swarm.get("Error") or ""
        )

    def _connect(self) -> docker.DockerClient:
        environment = {**os.environ, "DOCKER_HOST": self._docker_host or DEFAULT_HOST}
        with self._wrapped("does not answer"):
            _knock(environment["DOCKER_HOST"])
            return docker.from_env(timeout=_TIMEOUT_SECONDS, environment=environment)

    @contextmanager
    def _wrapped(self, failure: str) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            host = self._docker_host or DEFAULT_HOST
            raise EngineUnavailable(
                f"the Docker engine at {host} {failure}: {_cause(error)}",
                f"see that it is up with `docker --host {host} info`, or set DOCKER_HOST to a manager of the swarm",
            ) from error


def _knock(host: str) -> None:
    """Raise OSError where nobody listens on a unix socket: the SDK would leave its own socket open then."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_SECONDS)
            connection.connect(host.removeprefix("unix://"))


def _cause(error: DockerException | OSError) -> str:
    """The engine's own words, else the system's: the SDK wraps both several times over."""
    if isinstance(error, APIError):
        return str(error.explanation)
    innermost: BaseException = error
    while innermost.__context__:
        innermost = innermost.__context__
    return str(innermost) if isinstance(innermost, OSError) else str(error)


def with_port(address: str) -> str:
    """`host:port` of a swarm manager: the swarm's port where none is given, IPv6 addresses in brackets."""
    if address.count(":") > 1 and not address.startswith("["):
        return f"[{address}]:{_PORT}"
    host, colon, port = address.rpartition(":")
    return address if colon and port.isdigit() and host else f"{address}:{_PORT}"
