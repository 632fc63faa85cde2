"""The facts and the load of this host, by psutil, the kernel's files and the Docker engine."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import shlex
import shutil
import socket
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Generic, TypeVar

import psutil

from skyagent import __version__
from skyagent.client import engine_info
from skyagent.connections import Http
from skyagent.disks import Disk, Disks, data_folders
from skyagent.errors import EngineAway, Unmeasured
from skyagent.memory import Memory, memory
from skyagent.volumes import VolumeWatch

log = logging.getLogger(__name__)

T = TypeVar("T")
NIX_PROFILE = "/nix/var/nix/profiles/default/bin"
NIX_SECONDS = 3.0
LONGEST_TEXT = 1024
UNKNOWN = "no answer yet"
# A capacity that changed by less than this part is no news.
DRIFT = 0.03
# What is said of a disk whose size was never known: a manager takes no 0, and on this nothing fits.
SMALLEST_GB = 0.1


class Gauge(Generic[T]):
    """A figure that is never made up: where it cannot be measured the last known one stands, and the log says so."""

    def __init__(self, name: str, measure: Callable[[], T]) -> None:
        self._name = name
        self._measure = measure
        self._last: T | None = None
        self._failing = False

    def read(self) -> T:
        """Measure. Raises Unmeasured where that fails and nothing is known."""
        try:
            self._last = self._measure()
        except (OSError, LookupError, ValueError, psutil.Error) as error:
            return self._last_known(f"{type(error).__name__}: {error}")
        if self._failing:
            log.info("action=metric_back metric=%s", self._name)
        self._failing = False
        return self._last

    def _last_known(self, reason: str) -> T:
        if self._last is None:
            raise Unmeasured(f"{self._name}: {reason}")
        if not self._failing:
            log.warning("action=metric_failed metric=%s last_known=%s reason=%r", self._name, self._last, reason)
        self._failing = True
        return self._last


@dataclass(frozen=True)
class Engine:
    """The engine's last description of itself; `trouble` says why it is not known at present, `denied` that this
    process may not ask it. `kind`: an engine that is none of Docker's. `is_alone`: it says that it is in no swarm."""

    containers: int = 0
    data_folders: tuple[str, ...] = ("/",)
    version: str = ""
    swarm_node_id: str = ""
    trouble: str = UNKNOWN
    denied: bool = False
    kind: str = ""
    is_alone: bool = False

    @property
    def answers(self) -> bool | None:
        """Whether it does; None before the first look has ended, and where this process may not look."""
        return None if self.denied or self.trouble == UNKNOWN else not self.trouble


def parse_engine(info: dict[str, object]) -> Engine:
    """The part of `GET /info` that matters. Raises EngineAway where the container count is missing."""
    containers = info.get("ContainersRunning")
    if not isinstance(containers, int) or isinstance(containers, bool) or not 0 <= containers < 2**31:
        raise EngineAway("the answer holds no ContainersRunning")
    swarm = info.get("Swarm")
    node_id, state = (swarm.get("NodeID"), swarm.get("LocalNodeState")) if isinstance(swarm, dict) else (None, None)
    folders, version = data_folders(info), _text(info.get("ServerVersion"))
    kind = "podman" if "BuildahVersion" in info else ""  # which only Podman's answer to Docker's clients has
    return Engine(containers, folders, version, _text(node_id), trouble="", kind=kind, is_alone=state == "inactive")


def _text(value: object) -> str:
    """A text as it may stand in a report, whatever the engine said: short, and what UTF-8 can hold."""
    return str(value or "")[:LONGEST_TEXT].encode("utf-8", "replace").decode()


class EngineWatch:
    """Looks at the Docker engine in a thread of its own, so that a hung socket holds up nothing else."""

    def __init__(self, http: Http, timeout_seconds: float) -> None:
        self._http = http
        self._timeout_seconds = timeout_seconds
        self._thread: threading.Thread | None = None
        self._asked_at = 0.0
        self._unanswered_at: float | None = None
        self.latest = Engine()

    @property
    def silent_seconds(self) -> float:
        """For how long the engine has not answered: since the first question that was left without an answer."""
        return 0.0 if self._unanswered_at is None else round(time.monotonic() - self._unanswered_at, 1)

    def ask(self) -> None:
        """Begin to look, unless an earlier look still hangs; `latest` changes when there is an answer, or none in
        time."""
        if self._thread is None or not self._thread.is_alive():
            self._asked_at = time.monotonic()
            self._thread = threading.Thread(target=self._look, name="docker", daemon=True)
            self._thread.start()
        elif time.monotonic() - self._asked_at > self._timeout_seconds:
            self._failed("the answer has no end")

    def _look(self) -> None:
        try:
            self.latest = parse_engine(engine_info(self._http, self._timeout_seconds))
        except EngineAway as error:
            self._failed(str(error), denied=error.denied)
        else:
            self._unanswered_at = None

    def _failed(self, trouble: str, *, denied: bool = False) -> None:
        if self._unanswered_at is None:
            self._unanswered_at = self._asked_at
        self.latest = replace(self.latest, trouble=trouble, denied=denied)


class Host:
    """This machine, as the manager shall see it."""

    def __init__(self, local_address: Callable[[], str], engine: EngineWatch, volumes: VolumeWatch) -> None:
        self._local_address = local_address
        self._engine, self._volumes = engine, volumes
        self._cpu = Gauge("cpuPercent", psutil.cpu_percent)
        self._cores = Gauge("cpuCores", cpu_cores)
        self._memory, self._memory_now = Gauge("memory", memory), Memory(0, 100.0)
        self._disks, self._disk_now = Disks(), Disk(0, 100.0)
        self._said: dict[str, float] = {}
        self._constants = constants()
        psutil.cpu_percent()  # the first mean is the one since here

    def load(self) -> dict[str, object]:
        """The body of a heartbeat; CPU is the mean since the last call, the rest as of the last `registration`.

        Raises Unmeasured.
        """
        engine = self._engine.latest
        said: dict[str, object] = {} if engine.answers is None else {"engineAnswers": engine.answers}
        if engine.answers is False:
            said["engineSilentSeconds"] = self._engine.silent_seconds
        if self._volumes.latest is not None:
            said["imageVolumes"] = self._volumes.latest
        return {
            **said,
            "cpuPercent": self._cpu.read(),
            "memoryPercent": self._memory_now.percent,
            "diskPercent": self._disk_now.percent,
            "containerCount": engine.containers,
        }

    def registration(self) -> dict[str, Any]:
        """Measure; the body of a registration, all of which changes rarely. Raises Failure."""
        engine = self._engine.latest
        self._memory_now, self._disk_now = self._memory.read(), self._disks.read(engine.data_folders)
        said = {"dockerVersion": engine.version, "engine": engine.kind, "swarmNodeId": engine.swarm_node_id}
        facts = {**said, "engineTrouble": engine.trouble, **self._constants}
        metadata = {name: value for name, value in facts.items() if value}
        if engine.is_alone and not engine.trouble:
            metadata["swarmNodeId"] = ""  # unsaid, the manager would believe the last one
        return {
            "hostname": socket.gethostname(),
            "ipAddress": self._local_address(),
            "capacity": self._steady(self._capacity()),
            "metadata": {**metadata, "containerCountKnown": not engine.trouble},
        }

    def _capacity(self) -> dict[str, float]:
        """Logical CPUs, memory in MiB, and the size in GiB of the fullest file system of the engine's data."""
        disk_gb = max(round(self._disk_now.size / 2**30, 1), SMALLEST_GB)
        return {"cpuCores": self._cores.read(), "memoryMb": self._memory_now.total // 2**20, "diskGb": disk_gb}

    def _steady(self, capacity: dict[str, float]) -> dict[str, float]:
        """The capacity as it was said last, while memory and disk are about as large: balloons and pools drift."""
        said = self._said
        if not said or any(abs(said[name] - value) > _drift(name) * said[name] for name, value in capacity.items()):
            self._said = capacity
        return self._said


def _drift(name: str) -> float:
    return 0.0 if name == "cpuCores" else DRIFT


def cpu_cores() -> int:
    """The number of logical CPUs. Raises LookupError."""
    cores = psutil.cpu_count()
    if not cores:
        raise LookupError("the number of CPUs is not known")
    return cores


def constants() -> dict[str, str]:
    """The facts that stay the same while this process runs; those that this machine lacks are empty."""
    system = os.uname()
    return {
        "osVersion": os_version(),
        "kernelVersion": system.release,
        "architecture": system.machine,
        "nixVersion": nix_version(),
        "agentVersion": __version__,
        "bootId": _read("/proc/sys/kernel/random/boot_id"),
        "machineId": machine_id(),
        "instanceId": uuid.uuid4().hex,
    }


def machine_id() -> str:
    """An identifier of this machine for this application alone: the machine's own id never leaves it, machine-id(5)."""
    own = _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id")
    return hmac.new(own.encode(), b"skyagent", hashlib.sha256).hexdigest() if re.fullmatch("[0-9a-f]{32}", own) else ""


def os_version() -> str:
    """The distribution's name and version, os-release(5)."""
    for line in (_read("/etc/os-release") or _read("/usr/lib/os-release")).splitlines():
        if line.startswith("PRETTY_NAME="):
            return " ".join(shlex.split(line.partition("=")[2]))
    return os.uname().sysname


def nix_version() -> str:
    """Nix's version, asked of itself, once; empty where there is no Nix."""
    nix = shutil.which("nix", path=f"{os.environ.get('PATH', os.defpath)}:{NIX_PROFILE}")
    if not nix:
        return ""
    try:
        answer = subprocess.run([nix, "--version"], capture_output=True, text=True, timeout=NIX_SECONDS)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.warning("action=nix_failed reason=%r", str(error))
        return ""
    return answer.stdout.strip().rpartition(" ")[2]


def _read(path: str) -> str:
    """A small file of the system's; empty where it cannot be read."""
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, ValueError):
        return ""
