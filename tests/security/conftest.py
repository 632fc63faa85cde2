"""What tests of agents have, for those of their security."""

from tests.agent.conftest import docker_socket, make_unit, manager, write_config

__all__ = ["docker_socket", "make_unit", "manager", "write_config"]
