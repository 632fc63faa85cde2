"""What tests of agents have, for those of their security."""

from tests.agent.conftest import docker_socket, launch, make_unit, manager, start, write_config

__all__ = ["docker_socket", "launch", "make_unit", "manager", "start", "write_config"]
