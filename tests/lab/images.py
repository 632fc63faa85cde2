"""The file systems that hosts boot from, built once a machine, and the container images of the lab."""

import fcntl
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from .commands import run
from .network import FOLDER

# A swarm's node asks the registry of an image even where it has the image: at this address it is refused at once.
_REGISTRY = "localhost:9"
IMAGE = f"{_REGISTRY}/skylab/busybox:1"
WEB = f"{_REGISTRY}/skylab/web:1"  # answers its hostname on port 80
VOLUME = f"{_REGISTRY}/skylab/volume:1"  # the same, with a volume of its own at /data
# The same, healthy after 5 s: with a health check alone nobody is sent to a container that does not listen yet.
HEALTHY = f"{_REGISTRY}/skylab/healthy:1"
SLOW = f"{_REGISTRY}/skylab/slow:1"  # the same, healthy after 40 s
HELD = f"{_REGISTRY}/skylab/held:1"  # the same, healthy once a test has made the file READY in its container
READY = "/ready"
SICK = f"{_REGISTRY}/skylab/sick:1"  # the same, never healthy
ENDING = {code: f"{_REGISTRY}/skylab/ending:{code}" for code in (0, 3)}  # whose containers end at once, with this code
ABSENT = f"{_REGISTRY}/skylab/absent:1"  # which no node has
FICKLE = f"{_REGISTRY}/skylab/fickle:1"  # which a test makes another one on each node
# It listens nearly as soon as it runs: without a health check the engine sends it users from then on. It ends with 0
# where it is told to, as most servers do; one that is never healthy does not, or the engine would not say why it ended.
_SERVE = "trap 'exit {code}' TERM; httpd -f -p 80 -h /etc & {more}wait"
_CHECK = "HEALTHCHECK --interval=1s --timeout=2s --retries={retries} CMD {command}"
_BUILD_SECONDS = 600
_SYSTEM = ("systemd", "systemd-sysv", "dbus", "ca-certificates", "iproute2")
_DOCKER = ("docker.io", "iptables", "python3-venv")
_ENGINE = ("docker.io", "docker-cli", "iptables")
# How this machine reaches its package sources; a host gets the same.
_SOURCES = ("etc/apt/sources.list", "etc/apt/sources.list.d", "etc/apt/apt.conf.d", "usr/share/keyrings")
_ACCESS = (*_SOURCES, "etc/ssl/certs/ca-certificates.crt", "etc/resolv.conf", "etc/pip.conf")
# The older control groups are mounted read-only inside: an engine there has to write to them.
_CGROUPS = """[Unit]
DefaultDependencies=no
Before=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for m in /sys/fs/cgroup/*; do mountpoint -q $m && mount -o remount,rw,bind $m; done; true'
[Install]
WantedBy=basic.target
"""


def fresh() -> Path:
    """A minimal Debian with systemd: neither Docker nor Python."""
    return _built_once("fresh", _bootstrap)


def with_docker() -> Path:
    """The same with Docker and Python."""
    fresh()
    return _built_once("with-docker", _add_docker)


@cache
def engine(suite: str) -> Path:
    """A Debian of another release than this machine's, with its Docker engine; it is not booted."""
    return _built_once(f"engine-{suite}", partial(_unpack, packages=_ENGINE, suite=suite))


def _built_once(name: str, build: Callable[[Path], None]) -> Path:
    """The tree of this name; made in a folder beside it first, by one process while the others wait."""
    tree, half = FOLDER / name, FOLDER / f"{name}.half"
    with (FOLDER / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            shutil.rmtree(half, ignore_errors=True)
            build(half)
            half.rename(tree)
    return tree


def _bootstrap(tree: Path) -> None:
    _unpack(tree, _SYSTEM)
    _share_access(tree)
    unit = tree / "etc/systemd/system/cgroups.service"
    unit.write_text(_CGROUPS)
    wanted = tree / "etc/systemd/system/basic.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / unit.name).symlink_to(f"../{unit.name}")


def _unpack(tree: Path, packages: Sequence[str], suite: str | None = None) -> None:
    """A minimal Debian with these packages, of this machine's release unless another is named."""
    uri, own = _archive()
    variant = ("--variant=minbase", f"--include={','.join(packages)}")
    run("debootstrap", *variant, suite or own, str(tree), uri, timeout_seconds=_BUILD_SECONDS)


def _add_docker(tree: Path) -> None:
    run("cp", "--archive", str(FOLDER / "fresh"), str(tree))
    install = f"apt-get update -q && apt-get install -yq --no-install-recommends {' '.join(_DOCKER)}"
    inside = ("unshare", "--mount", "--pid", "--fork", "--kill-child", f"--root={tree}", "--mount-proc")
    quiet = ("env", "DEBIAN_FRONTEND=noninteractive")
    run(*inside, *quiet, "sh", "-c", install, timeout_seconds=_BUILD_SECONDS)


def busybox() -> bytes:
    """A tar for `docker import`: a static busybox and the names by which containers call it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for applet in ("sh", "sleep", "hostname", "httpd", "test", "false"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return archive.getvalue()


def variants() -> dict[str, list[str]]:
    """The images that are made from that tar, each by these words for `docker import`."""
    serves, late, slow = (
        _runs(_SERVE.format(code=0, more=more))
        for more in ("", f"sleep 5; echo >{READY}; ", f"sleep 40; echo >{READY}; ")
    )
    fails = _runs(_SERVE.format(code=1, more=""))
    becomes = _CHECK.format(retries=300, command=f"test -e {READY}")
    stays = _CHECK.format(retries=3, command="false")
    made = {
        IMAGE: (),
        WEB: (serves,),
        VOLUME: (serves, "VOLUME /data"),
        HEALTHY: (late, becomes),
        SLOW: (slow, becomes),
        HELD: (serves, becomes),
        SICK: (fails, stays),
        **{image: (_runs(f"exit {code}"),) for code, image in ENDING.items()},
    }
    return {image: [word for change in changes for word in ("--change", change)] for image, changes in made.items()}


def _runs(script: str) -> str:
    return f"CMD {json.dumps(['sh', '-c', script])}"


def _archive() -> tuple[str, str]:
    """The package archive that this machine itself uses, and its release."""
    form = "$(REPO_URI) $(CODENAME)"
    uri, suite = run("apt-get", "indextargets", "--format", form, "Created-By: Packages").splitlines()[0].split()
    return uri, suite


def _share_access(tree: Path) -> None:
    (tree / "etc/apt/sources.list").unlink(missing_ok=True)
    for name in _ACCESS:
        source, target = Path("/") / name, tree / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.exists():
            shutil.copyfile(source, target)
