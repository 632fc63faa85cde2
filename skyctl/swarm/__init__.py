"""Docker Swarm through the docker SDK, and nothing else."""

from skyctl.swarm.address import with_port
from skyctl.swarm.engine import SwarmEngine

__all__ = ["SwarmEngine", "with_port"]
