"""Run the agent as its command does, but for the waiting: it prints how much memory it holds after every hundredth
round."""

import os
import sys
import tracemalloc

from skyagent.agent import Agent
from skyagent.settings import load
from skyagent.systemd import Supervisor

ROUNDS = 800
WAITS_A_ROUND = 2


class Impatient(Supervisor):
    """A supervisor under whom no time passes."""

    waits = 0

    def pause(self, seconds: float) -> None:  # noqa: ARG002 (it is what no time is spent on)
        self.waits += 1
        rounds, rest = divmod(self.waits, WAITS_A_ROUND)
        if not rest and not rounds % 100:
            sys.stdout.write(f"{tracemalloc.get_traced_memory()[0]}\n")
        if rounds == ROUNDS:
            sys.exit()


tracemalloc.start()
Agent(load(None, os.environ), Impatient({}), os.environ).run()
