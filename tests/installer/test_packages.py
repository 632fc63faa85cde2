"""How the install script has packages installed: by the real apt and dpkg; stand-ins, which print what the real ones
print, for the package managers that this machine cannot have."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skyctl.installer import uninstaller
from tests.installer.test_script import SCRIPT, functions
from tests.support.debian import Debian, need_debian
from tests.support.helpers import PATIENCE_SECONDS
from tests.support.scratch_host import ScratchHost, need_scratch_host

# The script's own functions, as far as they install: `main` would also want systemd and a manager.
PREPARED = (
    functions(SCRIPT)
    + """
systemctl() { :; }
export LC_ALL=C
manager=apt-get distribution=debian bundle= with_nix=no scratch=$(mktemp -d)
has_docker() { command -v dockerd >/dev/null; }
"""
)
CHECK = PREPARED + "trap finish EXIT; log=$scratch/log; check_packages\n"
INSTALL = PREPARED + "trap 'cat $log >&2 || true' EXIT; log=$scratch/log; need_docker\n"
LOCKS = ("lib/apt/lists/lock", "lib/dpkg/lock-frontend", "lib/dpkg/lock", "cache/apt/archives/lock")


@pytest.fixture
def debian(tmp_path: Path) -> Debian:
    """A host that may install Docker, whose containerd is not Docker's own."""
    need_debian()
    debian = Debian(tmp_path)
    debian.offer("docker.io", "usr/sbin/dockerd", Depends="containerd")
    debian.offer("containerd", Conflicts="containerd.io")
    debian.offer("ca-certificates")
    debian.offer("containerd.io")
    return debian


def with_containerd_io(debian: Debian) -> None:
    made = debian.run("dpkg --install /var/archive/containerd.io.deb && apt-get -q update")
    assert made.returncode == 0, made.stderr
    assert debian.installed() == {"containerd.io"}


def test_nothing_is_removed_by_apt(debian: Debian) -> None:
    with_containerd_io(debian)
    for script in (CHECK, INSTALL):
        done = debian.run(script)
        assert (done.returncode, debian.installed()) == (35, {"containerd.io"}), done.stderr
        assert "error W35: to install docker.io ca-certificates, apt-get would remove containerd.io\n" in done.stderr


def test_apt_itself_is_told_to_remove_nothing(debian: Debian) -> None:
    """What is there may have changed since it was asked."""
    with_containerd_io(debian)
    done = debian.run(INSTALL.replace("need_docker\n", "foresee() { :; }; need_docker\n"))
    assert (done.returncode, debian.installed()) == (31, {"containerd.io"}), done.stderr


def test_what_would_come_along_is_told_and_nothing_changed(debian: Debian) -> None:
    assert debian.run("apt-get -q update").returncode == 0
    before = sorted(path for path in debian.var.rglob("*"))
    done = debian.run(CHECK + 'echo "$gains"\n')
    assert done.stdout == "ca-certificates containerd docker.io \n", done.stderr
    assert sorted(path for path in debian.var.rglob("*")) == before


def test_lists_that_are_not_there_yet_are_no_refusal(debian: Debian) -> None:
    done = debian.run(CHECK)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "later: packages" in done.stderr


def test_docker_is_installed(debian: Debian) -> None:
    done = debian.run(INSTALL)
    assert done.returncode == 0, done.stderr
    assert debian.installed() == {"docker.io", "containerd", "ca-certificates"}


def test_what_fails_but_leaves_the_program_there_is_enough(debian: Debian) -> None:
    debian.offer("docker-broken", "usr/sbin/dockerd", postinst="exit 7")
    done = debian.run(INSTALL.replace("need_docker\n", "docker_packages() { echo docker-broken; }; need_docker\n"))
    assert done.returncode == 0, done.stderr
    assert "Docker is installed, though apt-get ended with status 100" in done.stderr


@contextmanager
def held(file: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process holds this lock, in the way of apt."""
    file.touch()
    program = (
        f"import fcntl, sys; f = open({str(file)!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    )
    holder = subprocess.Popen(["/usr/bin/python3", "-I", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout
    holder.stdout.readline()
    try:
        yield holder
    finally:
        holder.communicate(timeout=PATIENCE_SECONDS)


def waits_for(debian: Debian, name: str, script: str) -> None:
    """The script names who holds that lock, and goes on once it is given back."""
    with held(debian.var / name) as holder:
        process = debian.start(script)
        assert process.stderr
        told = process.stderr.readline()
        while told and "waiting for it to end" not in told:
            told = process.stderr.readline()
        assert f"(process {holder.pid}: /usr/bin/python3 -I -c " in told
    _, error = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, error


@pytest.mark.parametrize("name", LOCKS)
def test_each_lock_of_apt_is_waited_for_by_name(debian: Debian, name: str) -> None:
    waits_for(debian, name, INSTALL)
    assert "docker.io" in debian.installed()


def test_it_is_waited_for_when_packages_are_removed(debian: Debian) -> None:
    with_containerd_io(debian)
    prepared = (
        uninstaller().removesuffix('{ uninstall "$@"; }\n')
        + "scratch=$(mktemp -d) log=$scratch/log packages=$scratch/p\n"
    )
    waits_for(
        debian,
        "lib/dpkg/lock",
        prepared + "is_asked_for() { return 1; }; echo containerd.io >$packages; remove_packages\n",
    )
    assert debian.installed() == set()


def test_a_lock_that_is_never_given_back_is_no_endless_wait(debian: Debian) -> None:
    with held(debian.var / LOCKS[0]) as holder:
        done = debian.run(INSTALL.replace("need_docker\n", "sleep() { tries=0; }; need_docker\n"))
    assert done.returncode == 36
    assert f"locked for 15 minutes by process {holder.pid} " in done.stderr


def test_a_file_of_a_lock_that_nobody_holds_is_none(debian: Debian) -> None:
    for name in LOCKS:
        (debian.var / name).touch()
    (debian.var / "run").unlink()
    assert debian.run(INSTALL).returncode == 0


DNF = """Dependencies resolved.
================================================================================
 Package               Arch    Version            Repository               Size
================================================================================
Installing:
 docker-ce             x86_64  3:27.3.1-1.el9     docker-ce-stable         27 M
     replacing  podman-docker.noarch 2:5.2.2-1.el9
Installing dependencies:
 containerd.io         x86_64  1.7.22-3.1.el9     docker-ce-stable         43 M
Removing dependent packages:
 buildah               x86_64  2:1.37.2-1.el9     @appstream               30 M

Transaction Summary
================================================================================
Install  2 Packages
Remove   1 Package

Operation aborted.
"""
ZYPPER = """<?xml version='1.0'?>
<stream>
<install-summary download-size="1" space-usage-diff="1" packages-to-change="3">
<to-install>
<solvable type="package" name="docker" edition="27.1" arch="x86_64"/>
</to-install>
<to-remove>
<solvable type="package" name="podman-docker" edition="4.9" arch="noarch"/>
</to-remove>
</install-summary>
</stream>
"""
APK = """(1/3) Purging podman-docker (5.2.5-r0)
(2/3) Installing containerd (1.7.23-r0)
(3/3) Installing docker (27.3.1-r0)
OK: 300 MiB in 60 packages
"""
FORESEEN = [
    ("dnf", "rhel", DNF, "podman-docker.noarch buildah", "docker-ce containerd.io"),
    ("yum", "amzn", DNF, "podman-docker.noarch buildah", "docker-ce containerd.io"),
    ("zypper", "opensuse-leap", ZYPPER, "podman-docker", "docker"),
    ("apk", "alpine", APK, "podman-docker", "containerd docker"),
]


@pytest.fixture
def host(tmp_path: Path, request: pytest.FixtureRequest) -> ScratchHost:
    """A host with Python and stand-ins for one of the other package managers."""
    need_scratch_host()
    manager, distribution = request.param
    host = ScratchHost(tmp_path / "host", (manager,), distribution)
    host.add_python()
    return host


@pytest.mark.parametrize(
    ("host", "says", "losses", "gains"),
    [((manager, name), says, losses, gains) for manager, name, says, losses, gains in FORESEEN],
    indirect=["host"],
    ids=[manager for manager, *_ in FORESEEN],
)
def test_what_others_would_remove_is_refused_before_anything_is_changed(
    host: ScratchHost, says: str, losses: str, gains: str
) -> None:
    (host.root / "would").write_text(says)
    before = host.files()
    for arguments in ((), ("--dry-run",)):
        done = host.install(SCRIPT, *arguments)
        assert (done.returncode, host.files()) == (35, before)
        assert f" would remove {losses}\nhint: nothing is removed" in done.stderr
    harmless = "".join(
        line
        for line in says.replace("podman-docker", "").splitlines(keepends=True)
        if not any(word in line for word in ("replacing", "Removing", "buildah", "noarch", "Purging"))
    )
    (host.root / "would").write_text(harmless)
    done = host.install(SCRIPT, "--dry-run")
    assert f"would install with all that they need: {gains}\n" in done.stderr


OTHERS = [("dnf", "fedora"), ("yum", "amzn"), ("zypper", "opensuse-leap"), ("apk", "alpine")]


@pytest.mark.parametrize("host", OTHERS, indirect=True, ids=[name for name, _ in OTHERS])
@pytest.mark.parametrize("status", [1, 100, 102, 106, 107])
def test_a_status_is_no_failure_where_the_program_is_there(host: ScratchHost, status: int) -> None:
    (manager,) = [path for path in (host.root / "usr/bin").iterdir() if path.name in dict(OTHERS)]
    with manager.open("a") as program:
        program.write(f"case $* in --version) ;; *) exit {status} ;; esac\n")
    done = host.install(SCRIPT)
    assert done.returncode == 0, done.stderr
    assert f"Docker is installed, though {manager.name} ended with status {status}" in done.stderr


@pytest.mark.parametrize("host", [("zypper", "sles")], indirect=True)
def test_a_zypper_that_has_replaced_itself_is_called_again(host: ScratchHost) -> None:
    program = host.root / "usr/bin/zypper"
    first = "case $* in *--dry-run* | --version) ;; *) [ -e /again ] || { busybox touch /again; exit 103; } ;; esac\n"
    program.write_text(program.read_text().replace('\ncase "$*" in', f'\n{first}case "$*" in', 1))
    assert host.install(SCRIPT).returncode == 0


@pytest.mark.parametrize("host", OTHERS, indirect=True, ids=[name for name, _ in OTHERS])
@pytest.mark.parametrize("status", [0, 1])
def test_a_program_that_is_not_there_is_a_failure_whatever_the_status(host: ScratchHost, status: int) -> None:
    (manager,) = [path for path in (host.root / "usr/bin").iterdir() if path.name in dict(OTHERS)]
    host.program(f"usr/bin/{manager.name}", f"case $* in --version) ;; *) exit {status} ;; esac")
    done = host.install(SCRIPT)
    assert done.returncode == 31
    assert f"error W31: {manager.name} could not install Docker (status {status})\n" in done.stderr
