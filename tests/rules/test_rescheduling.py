"""What is said of what the swarm starts elsewhere by itself."""

from dataclasses import replace

from skyctl.rules import rescheduling
from tests.rules.test_local_state import TASK, service

LOST = replace(TASK, state="running", wanted="shutdown")


def test_an_error_from_before_the_node_was_lost_is_none_of_now() -> None:
    old = replace(TASK, node_id="n3", state="failed", wanted="shutdown", error="non-zero exit (137)")
    coming = replace(TASK, node_id="n2", state="preparing")
    assert rescheduling.trouble(service(tasks=[old, LOST, coming]), "n1") == ""
    assert rescheduling.trouble(service(tasks=[LOST, old, coming]), "n1") == "non-zero exit (137)"
    waiting = replace(TASK, node_id=None, state="pending", error="no suitable node")
    assert rescheduling.trouble(service(tasks=[LOST, waiting, old]), "n1") == "no suitable node"
