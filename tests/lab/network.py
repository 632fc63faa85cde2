"""The lab's network: one bridge behind NAT, and a namespace with a cable to it for every machine.

Several labs may stand side by side, each with a number. Everything of a lab carries its name, so whatever a killed run
has left is found and removed by the next of that number.
"""

import fcntl
import itertools
import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from tests.support.helpers import PATIENCE_SECONDS

from . import groups
from .commands import attempt, run

# One for each process of a parallel run of the tests; else what the environment says.
NUMBER = int(os.environ.get("SKYLAB_NUMBER") or os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
NAME = f"skylab{NUMBER}"
FOLDER = Path("/var/lib/skylab")
MACHINES = FOLDER / f"machines{NUMBER}"
BRIDGE = f"{NAME}-br"
SUBNET = f"10.78.{NUMBER}.0/24"
_NAT = ("POSTROUTING", "--source", SUBNET, "!", "--destination", SUBNET, "--jump", "MASQUERADE")
# An engine of the machine itself drops what is forwarded, and bridged packets pass there too.
_FORWARD = [("FORWARD", direction, BRIDGE, "--jump", "ACCEPT") for direction in ("--in-interface", "--out-interface")]
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_ROOM_BYTES = 10 << 30  # of memory that is free, above which machines lie there
_BEFORE = FOLDER / "ip_forward"  # what it was before the lab, killed or not, changed it


class Network:
    """The bridge; `gateway` on it is this machine. A second lab of the same number waits for the first to end."""

    gateway = f"10.78.{NUMBER}.254"

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        FOLDER.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(f"lock{NUMBER}", fcntl.LOCK_EX)
        clear()
        self._forwards = _forward()
        MACHINES.mkdir(parents=True)
        if psutil.virtual_memory().available > _ROOM_BYTES:  # gigabytes are written in a run: a slow disk holds all up
            run("mount", "-t", "tmpfs", "-o", "mode=755,size=50%", NAME, str(MACHINES))
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{self.gateway}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        run("iptables", "--wait", "--table", "nat", "--append", *_NAT)
        for rule in _FORWARD:
            run("iptables", "--wait", "--insert", *rule)

    def close(self) -> None:
        """Remove every machine and the bridge, and leave the lab to the next."""
        clear()
        _restore(self._forwards)
        self._lock.close()

    def wire(self, name: str) -> str:
        """Make the namespace of a machine, with its cable to the bridge; its address."""
        number = next(self._numbers)
        address, outside, space = f"10.78.{NUMBER}.{number}", f"{NAME}-{number}", namespace(name)
        run("ip", "netns", "add", space)
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "link", "set", outside, "master", BRIDGE, "up")
        run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "lo", "up")
        plug(name)
        return address


def namespace(name: str) -> str:
    """The network namespace of the machine `name`."""
    return f"{NAME}-{name}"


def plug(name: str) -> None:
    """Put the cable of a machine in, and give it its way out."""
    run("ip", "-n", namespace(name), "link", "set", "eth0", "up")
    run("ip", "-n", namespace(name), "route", "replace", "default", "via", Network.gateway)


def unplug(name: str) -> None:
    """Pull the cable of a machine."""
    run("ip", "-n", namespace(name), "link", "set", "eth0", "down")


def clear() -> None:
    """Remove everything that bears the lab's name, but for the base images."""
    for space in run("ip", "netns", "list").split():
        if space.startswith(f"{NAME}-"):
            remove(space.removeprefix(f"{NAME}-"))
    attempt("ip", "link", "del", BRIDGE)
    attempt("iptables", "--wait", "--table", "nat", "--delete", *_NAT)
    for rule in _FORWARD:
        attempt("iptables", "--wait", "--delete", *rule)
    attempt("umount", "--lazy", str(MACHINES))
    shutil.rmtree(MACHINES, ignore_errors=True)


def remove(name: str) -> None:
    """Power off the machine `name` and remove its namespace, its cable, its control groups and its files."""
    space = namespace(name)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while running := _processes(name):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes of {space} do not end: {running}")
        signal_all(name, signal.SIGKILL)
        threading.Event().wait(0.05)
    groups.remove(space)
    shutil.rmtree(MACHINES / name, ignore_errors=True)
    attempt("ip", "-n", space, "link", "del", "eth0")
    run("ip", "netns", "del", space)  # last: by it the next run finds what a killed one has left


def signal_all(name: str, number: signal.Signals) -> None:
    """Send a signal to every process of the machine `name`, and to those that they start meanwhile."""
    told: set[int] = set()
    while news := _processes(name) - told:
        for pid in news:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        told |= news


def _processes(name: str) -> set[int]:
    space = namespace(name)
    return {int(pid) for pid in run("ip", "netns", "pids", space).split()} | groups.processes(space)


def _forward() -> IO[str]:
    """Let this machine forward packets; what is returned says that a lab needs it."""
    needed = _lock("forwarding", fcntl.LOCK_SH)
    if not _BEFORE.exists():
        shutil.copyfile(_FORWARDING, _BEFORE)
    _FORWARDING.write_text("1")
    return needed


def _restore(forwards: IO[str]) -> None:
    """Let this machine forward as it did before the labs, if no other one stands."""
    with forwards, suppress(BlockingIOError):
        fcntl.flock(forwards, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _FORWARDING.write_text(_BEFORE.read_text())
        _BEFORE.unlink()


def _lock(name: str, kind: int) -> IO[str]:
    lock = (FOLDER / name).open("w")
    fcntl.flock(lock, kind)
    return lock
