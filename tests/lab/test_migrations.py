"""Containers follow the health of their workers on a real swarm, with every part a real process, under a probe of their
users."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from itertools import cycle

from skyctl.domain.cluster import Capacity
from skyctl.domain.drains import DrainOptions
from skyctl.domain.errors import EngineConflict
from skyctl.domain.states import MigrationPolicy
from skyctl.operations.admin import drains, migrations
from tests.conftest import clean_environment
from tests.support.helpers import PATIENCE_SECONDS, TESTS, eventually

from . import images
from .machines import Node
from .network import Network
from .probe import Probe
from .site import TIMEOUT_SECONDS, Site
from .swarm import release

SIX = [f"web{number}" for number in range(6)]


def say(figure: str) -> None:
    """A figure for whoever reads the run: `pytest -rP` shows it."""
    sys.stdout.write(figure + "\n")


def moved(site: Site, *names: str) -> bool:
    return all(site.states().get(name) == "completed" for name in names)


def failures(probe: Probe) -> dict[str, dict[str, int]]:
    return {name: dict(one.failures) for name, one in probe.ended().items() if one.failures}


def test_a_drain_loses_no_request(site: Site) -> None:
    site.monitor()
    site.until_active("north", "south")
    site.deploy(*SIX, to="north", image=images.HEALTHY)
    with Probe(site.swarm.manager, site.network, *SIX, per_second=80) as probe:
        drains.drain(site.context, [site.worker("north").id], TESTS)
        eventually(lambda: drains.progress(site.context, [site.worker("north").id])[0].is_over)
        ours = probe.ended()
    assert set(site.where().values()) == {"south"}
    assert site.containers(site.swarm.workers[0]) == 0
    assert {name: dict(one.failures) for name, one in ours.items()} == {name: {} for name in ours}
    assert all(len(one.by) == 2 for one in ours.values()), "each was answered by the old and by the new container"
    drains.undrain(site.context, site.worker("north").id, TESTS)
    for service in site.swarm.engine.observe().services.values():
        unpin = ["--constraint-rm", f"node.id=={site.swarm.ids['south']}"]
        site.swarm.manager.run("docker", "service", "update", "--detach", *unpin, service.id)
    with Probe(site.swarm.manager, site.network, *SIX, per_second=80) as probe:
        site.swarm.manager.run("docker", "node", "update", "--availability", "drain", site.swarm.ids["south"])
        eventually(lambda: all(where and where != ["south"] for where in site.running().values()))
        theirs = probe.ended()
    asked = sum(one.answers for one in ours.values())
    lost = sum(sum(one.failures.values()) for one in theirs.values())
    asked_of_docker = lost + sum(one.answers for one in theirs.values())
    say(f"skyctl drain: 0 of {asked} requests failed; docker's: {lost} of {asked_of_docker}")
    assert lost > 0


def test_a_pulled_cable(site: Site) -> None:
    site.monitor()
    north, south = site.swarm.workers
    site.until_active("north", "south")
    site.deploy(*SIX, to="north")
    with Probe(site.swarm.manager, site.network, *SIX) as probe:
        north.cut()
        eventually(lambda: moved(site, *SIX))
        seen = probe.ended()
    gap = max(one.longest_gap_seconds for one in seen.values())
    after = f"{gap - TIMEOUT_SECONDS:.1f} s after the timeout of {TIMEOUT_SECONDS} s"
    say(f"cable pulled: the last service answers again {after}")
    assert {name: set(nodes) for name, nodes in site.running().items()} == {name: {"south"} for name in SIX}
    healed = time.monotonic()
    north.heal()
    eventually(lambda: all(each.source_stopped_at for each in site.migrations().values()))
    # the swarm may have replaced a container on its own while the worker was away: the last one ends in this time, too
    eventually(lambda: (site.containers(north), site.containers(south)) == (0, len(SIX)))
    say(f"cable back: one instance of each after {time.monotonic() - healed:.1f} s")
    assert set(site.where().values()) == {"south"}, "nothing moves back"


def test_a_second_container_that_the_swarm_started_on_its_own_is_stopped(site: Site) -> None:
    site.monitor()
    north, south = site.swarm.workers
    site.until_active("north", "south")
    with ThreadPoolExecutor() as pool:
        deployed = pool.submit(site.deploy, "held", to="north", image=images.HELD)
        release(north, 1)
        deployed.result()
    drains.drain(site.context, [site.worker("north").id], TESTS)
    eventually(lambda: site.containers(south) == 1)
    north.freeze()  # the swarm takes it for down, and starts a container beside the one of the move
    try:
        release(south, 2)
        eventually(lambda: moved(site, "held"))
    finally:
        north.thaw()
    eventually(lambda: site.containers(north) == 0)
    eventually(lambda: site.running() == {"held": ["south"]})
    eventually(lambda: site.containers(south) == 1)


def test_manual_moves_what_is_approved(site: Site) -> None:
    site.monitor()
    north, _ = site.swarm.workers
    site.until_active("north", "south")
    site.deploy("asked", "refused", to="north")
    migrations.set_policy(site.context, site.organization, MigrationPolicy.MANUAL, TESTS)
    north.cut()
    eventually(lambda: site.states() == {"asked": "awaiting_approval", "refused": "awaiting_approval"})
    migrations.approve(site.context, site.migrations()["asked"].id, TESTS)
    migrations.reject(site.context, site.migrations()["refused"].id, TESTS)
    eventually(lambda: moved(site, "asked"))
    assert site.where() == {"asked": "south", "refused": "north"}
    assert site.states()["refused"] == "cancelled"
    north.heal()
    eventually(lambda: site.migrations()["asked"].source_stopped_at)
    eventually(lambda: site.running() == {"asked": ["south"], "refused": ["north"]})


def last_pass(site: Site) -> object:
    return site.connection.execute("SELECT last_pass_at FROM monitor_leases").fetchone()


def has_looked_since(site: Site, before: object) -> bool:
    """Whether the monitor has looked at every worker once more."""
    return last_pass(site) != before


def test_none_moves_nothing_and_tells_of_the_worker_alone(site: Site) -> None:
    site.monitor()
    north, _ = site.swarm.workers
    site.until_active("north", "south")
    site.deploy("stays", to="north")
    migrations.set_policy(site.context, site.organization, MigrationPolicy.NONE, TESTS)
    north.cut()
    eventually(lambda: site.worker("north").status == "offline")
    for _ in range(3):
        eventually(partial(has_looked_since, site, last_pass(site)))
    assert site.states() == {}
    assert site.where() == {"stays": "north"}
    assert site.connection.execute("SELECT kind FROM worker_alerts").fetchall() == [("worker_offline",)]
    north.heal()
    eventually(lambda: site.running() == {"stays": ["north"]})


def test_without_room_it_waits_for_a_worker_that_joins(site: Site, lab: Network) -> None:
    site.monitor()
    site.until_active("north", "south")
    half = Capacity(0.2, site.worker("south").capacity.memory_mb * 0.6, 0.001)
    site.deploy("big", to="north", limits=half)
    site.deploy("other", to="south", limits=half)
    drains.drain(site.context, [site.worker("north").id], TESTS)
    eventually(lambda: "memory" in site.migrations()["big"].reason if "big" in site.migrations() else False)
    assert "south" in site.migrations()["big"].reason
    with Node(lab, "east") as east:
        site.swarm.add(east)
        site.join(east)
        eventually(lambda: moved(site, "big"))
        assert site.where()["big"] == "east"
        site.swarm.clear()
        site.swarm.forget(east)


def test_what_never_gets_healthy_stays(site: Site) -> None:
    site.monitor()
    north, south = site.swarm.workers
    site.until_active("north", "south")
    north.run("docker", "tag", images.WEB, images.FICKLE)
    south.run("docker", "tag", images.SICK, images.FICKLE)
    site.deploy("fickle", to="north", image=images.FICKLE)
    with Probe(site.swarm.manager, site.network, "fickle") as probe:
        drains.drain(site.context, [site.worker("north").id], TESTS, DrainOptions(deadline=timedelta(seconds=30)))
        eventually(lambda: drains.progress(site.context, [site.worker("north").id])[0].is_over)
        assert failures(probe) == {}
    found = site.migrations()["fickle"]
    assert found.state in ("failed", "cancelled"), "as the deadline finds it under way or between two attempts"
    assert site.where() == {"fickle": "north"}
    assert site.running() == {"fickle": ["north"]}
    assert drains.progress(site.context, [site.worker("north").id])[0].left == ["fickle"]


def test_a_monitor_may_be_killed_at_every_boundary(site: Site, environment: dict[str, str]) -> None:
    first = site.monitor()
    site.until_active("north", "south")
    site.deploy("a", "b", to="north")
    assert first.stop() == 0
    killed = Counter[int]()
    for source, target, order in (("north", "south", (1, 2)), ("south", "north", (2, 1))):
        drains.drain(site.context, [site.worker(source).id], TESTS)
        boundaries = cycle(order)  # each monitor comes a boundary further than the one before it, or not at all
        deaths = Counter[int]()
        while not drained(site, source):
            boundary = next(boundaries)
            deaths[boundary] += die_at(site, boundary, environment | site.environment, source)
        assert all(deaths[boundary] for boundary in order), "how many more there are depends on the machine's speed"
        killed += deaths
        assert site.where() == {"a": target, "b": target}
        assert site.running() == {"a": [target], "b": [target]}
        for each in site.migrations().values():
            kinds = site.history(each.id)
            assert [kinds.count(kind) for kind in ("migration_queued", "migration_started", "migration_completed")] == [
                1,
                1,
                1,
            ]
        drains.undrain(site.context, site.worker(source).id, TESTS)
    say(f"killed at {killed.total()} boundaries")


def die_at(site: Site, boundary: int, environment: dict[str, str], source: str) -> bool:
    """Run a monitor that is killed at a boundary, if it comes to it before the worker is drained; whether it did."""
    command = [sys.executable, "-m", "tests.lab.mortal", str(boundary)]
    mortal = subprocess.Popen(command, env=clean_environment() | environment, stderr=subprocess.DEVNULL)
    eventually(lambda: mortal.poll() is not None or drained(site, source))
    mortal.terminate()
    return mortal.wait(PATIENCE_SECONDS) == -signal.SIGKILL


def drained(site: Site, name: str) -> bool:
    return drains.progress(site.context, [site.worker(name).id])[0].is_over


def test_two_monitors_and_somebody_who_changes_the_services(site: Site) -> None:
    monitors = [site.monitor(), site.monitor()]
    site.until_active("north", "south")
    site.deploy(*SIX, to="north")
    over = threading.Event()

    def meddle() -> None:
        number = 0
        while not over.is_set():
            number += 1
            for service in site.swarm.engine.observe().services.values():
                assert service.node_id
                try:
                    site.swarm.engine.move(service.id, service.version, service.node_id, {"meddled": str(number)})
                except EngineConflict:
                    continue

    meddler = threading.Thread(target=meddle)
    meddler.start()
    try:
        drains.drain(site.context, [site.worker("north").id], TESTS)
        eventually(lambda: "completed" in site.states().values())
        for monitor in monitors:
            os.kill(monitor.popen.pid, signal.SIGSTOP)
        os.kill(monitors[0].popen.pid, signal.SIGCONT)
        eventually(lambda: drained(site, "north"))
    finally:
        over.set()
        meddler.join()
        os.kill(monitors[1].popen.pid, signal.SIGCONT)
    assert site.where() == dict.fromkeys(SIX, "south")
    assert site.running() == {name: ["south"] for name in SIX}
    completed = site.connection.execute(
        "SELECT count(*), count(DISTINCT service_id) FROM container_migrations WHERE state = 'completed'"
    ).fetchone()
    assert completed == (6, 6)


def test_the_engine_restarts_in_the_middle(site: Site) -> None:
    site.monitor()
    site.until_active("north", "south")
    site.deploy(*SIX, to="north")
    drains.drain(site.context, [site.worker("north").id], TESTS)
    eventually(lambda: "verifying" in site.states().values())
    site.swarm.manager.kill()
    site.swarm.manager.power_on()
    eventually(lambda: drained(site, "north"))
    assert site.where() == dict.fromkeys(SIX, "south")
    eventually(lambda: site.running() == {name: ["south"] for name in SIX})
    assert [site.states()[name] for name in SIX] == ["completed"] * 6
