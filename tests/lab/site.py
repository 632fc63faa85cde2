"""A whole installation on the lab's swarm: the API, a monitor, and an agent on every worker, each a process of its
own."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import psycopg

from skyctl.domain.cluster import Capacity, Worker
from skyctl.domain.states import EndpointMode
from skyctl.domain.workloads import Migration, Organization, Service, ServiceSpec
from skyctl.operations.admin import deploy as deploy_admin
from skyctl.operations.admin import migrations, services, workers
from skyctl.operations.agents import invitations
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context
from skyctl.rules.tasks import runs
from tests.conftest import Process
from tests.support.helpers import TESTS, eventually

from . import images
from .machines import Node
from .network import Network
from .swarm import Swarm

INTERVAL_SECONDS, TIMEOUT_SECONDS = 2, 10
SETTINGS = {
    "WORKER_HEARTBEAT_INTERVAL": str(INTERVAL_SECONDS),
    "WORKER_HEARTBEAT_TIMEOUT": str(TIMEOUT_SECONDS),
    "WORKER_CPU_LIMIT": "100",
    "WORKER_MEMORY_LIMIT": "100",
    "WORKER_DISK_LIMIT": "100",
    "SKYCTL_ENCRYPT_NETWORKS": "false",
}
# so much of a processor that a container listens as soon as it runs
LIMITS = Capacity(cpu_cores=0.2, memory_mb=16, disk_gb=0.001)
CORES = 100


# All machines of the lab share this one's processors: how busy those are says nothing of a single one, and would
# leave no room.
IDLE = """
    CREATE FUNCTION idle() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN NEW.current_load := NEW.current_load || '{"cpuPercent": 0}'; RETURN NEW; END $$;
    CREATE TRIGGER idle BEFORE UPDATE OF current_load ON container_workers FOR EACH ROW EXECUTE FUNCTION idle();
"""


class Site:
    """The installation; `start` starts a process of skyctl that is gone at the end of the test."""

    def __init__(
        self,
        swarm: Swarm,
        context: Context,
        connection: psycopg.Connection,
        start: Callable[..., Process],
        **settings: str,
    ) -> None:
        self.swarm, self.context, self.connection = swarm, context, connection
        connection.execute(IDLE)
        self.environment = {**SETTINGS, **settings, "DOCKER_HOST": swarm.manager.engine}
        self._start = start
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        serving = start("serve", "--insecure-http", "--host", Network.gateway, "--port", "0", **self.environment)
        self.url = serving.until("listening on ").split("listening on ")[1].strip()
        for node in swarm.workers:
            self.join(node)

    def monitor(self) -> Process:
        """Start a monitor."""
        started = self._start("monitor", "--interval", "1", **self.environment)
        started.until("action=watching")
        return started

    def join(self, node: Node) -> None:
        """Let a node be a worker; returns when it has been heard from."""
        invited = invitations.invite(self.context, TESTS, node.name)
        config = node.folder / "agent.json"
        config.touch(0o600)
        config.write_text(
            json.dumps(
                {
                    "apiUrl": self.url,
                    "authToken": invited.token,
                    "workerId": str(invited.worker_id),
                    "heartbeatInterval": INTERVAL_SECONDS,
                    "insecure": True,
                }
            )
        )
        self._agents[node.name] = node.spawn(sys.executable, "-m", "skyagent", "--config", str(config))
        eventually(lambda: self.worker(node.name).last_heartbeat_at and self.worker(node.name).swarm_node_claim)
        # this machine's few processors are not to be the limit
        cores = json.dumps({"cpuCores": CORES})
        self.connection.execute(
            "UPDATE container_workers SET capacity = capacity || %s WHERE name = %s", (cores, node.name)
        )

    def close(self) -> None:
        """End the agents."""
        for agent in self._agents.values():
            agent.kill()
            agent.wait()

    def worker(self, name: str) -> Worker:
        """A worker as it is stored."""
        return lookup.find_worker(self.context, name)

    def until_active(self, *names: str) -> None:
        """Wait until the monitor has concluded that these workers are active, and that their nodes are theirs."""
        eventually(
            lambda: all(self.worker(name).status == "active" and self.worker(name).confirmed_node for name in names)
        )

    @property
    def organization(self) -> Organization:
        """The organization whose services these are."""
        return services.organization(self.context, None, make=True)

    @property
    def network(self) -> str:
        """The name of its network."""
        return f"org-{self.organization.id}-network"

    def deploy(self, *names: str, to: str, image: str = images.WEB, limits: Capacity = LIMITS, **more: Any) -> None:
        """Let services run on a worker; returns when the monitor knows that they do."""
        others = [each.id for each in workers.list_workers(self.context).workers if each.name != to]
        self._flap(others, flap=True)
        for name in names:
            spec = ServiceSpec(name, image, limits, endpoint_mode=EndpointMode.DNSRR, **more)
            deploy_admin.deploy(self.context, TESTS, self.organization, spec)
        self._flap(others, flap=False)
        self.connection.execute("NOTIFY skyctl_news")
        eventually(lambda: all(self.services()[name].status == "running" for name in names))

    def services(self) -> dict[str, Service]:
        """The services by name."""
        return {each.spec.name: each for each in services.list_services(self.context, limit=1000).services}

    def where(self) -> dict[str, str | None]:
        """Of each service the worker on which its current deployment is."""
        return {name: each.current.worker_name if each.current else None for name, each in self.services().items()}

    def running(self) -> dict[str, list[str]]:
        """Of each service the workers on which a container of it runs and is to, as the swarm has it."""
        ids = {each.current.swarm_service_id: name for name, each in self.services().items() if each.current}
        seen = self.swarm.engine.observe()
        return {
            ids[service.id]: sorted(
                seen.nodes[task.node_id].hostname for task in service.tasks if runs(task) and task.node_id
            )
            for service in seen.services.values()
            if service.id in ids
        }

    def containers(self, node: Node) -> int:
        """How many containers the node's own engine runs."""
        return len(node.run("docker", "ps", "--quiet").split())

    def migrations(self) -> Mapping[str, Migration]:
        """The latest migration of each service, by the service's name."""
        found = migrations.list_migrations(self.context, limit=1000).migrations
        return {each.service_name: each for each in sorted(found, key=lambda each: each.created_at)}

    def states(self) -> dict[str, str]:
        """The state of the latest migration of each service."""
        return {name: each.state.value for name, each in self.migrations().items()}

    def history(self, migration_id: UUID) -> list[str]:
        """The kinds of what happened to a migration."""
        return [event.kind for event in migrations.history(self.context, migration_id)]

    def _flap(self, worker_ids: list[UUID], *, flap: bool) -> None:
        since = "now()" if flap else "NULL"
        self.connection.execute(
            f"UPDATE container_workers SET flapping_since = {since} WHERE id = ANY (%s)", (worker_ids,)
        )
