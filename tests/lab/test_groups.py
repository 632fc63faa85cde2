"""The lab's control groups while the engines in them come and go."""

import os
import threading
from uuid import uuid4

from tests.lab import groups


def test_a_group_that_is_removed_meanwhile_has_no_processes() -> None:
    name = f"skylab-groups-{uuid4().hex[:8]}"
    made = groups.make(name)
    seen = threading.Event()

    def come_and_go() -> None:
        while not seen.is_set():
            for group in made:
                (group / "inner").mkdir()
            for group in made:
                (group / "inner").rmdir()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(2_000):
            assert os.getpid() not in groups.processes(name)
    finally:
        seen.set()
        thread.join()
        groups.remove(name)
