"""What the install script does, on hosts that are only folders: which programs it calls, and which files it leaves."""

import hashlib
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from skyctl.installer import render, requirements, uninstaller
from tests.installer.test_script import INVITATION, JOIN, SCRIPT
from tests.support.helpers import PATIENCE_SECONDS
from tests.support.scratch_host import NOW, PYTHON, ScratchHost, need_scratch_host


@pytest.fixture
def host(tmp_path: Path) -> ScratchHost:
    need_scratch_host()
    return ScratchHost(tmp_path / "host")


def break_nothing(_host: ScratchHost) -> None:
    """What is wrong is said by the arguments alone."""


def lose_systemd(host: ScratchHost) -> None:
    (host.root / "run/systemd/system").rmdir()


def be_unsupported(host: ScratchHost) -> None:
    (host.root / "etc/os-release").write_text("ID=plan9\n")


def lose_packages(host: ScratchHost) -> None:
    (host.root / "usr/bin/apt-get").unlink()


def be_of_another_architecture(host: ScratchHost) -> None:
    host.program("bin/uname", "echo mips")


def fill_the_disk(host: ScratchHost) -> None:
    host.disk(free=9999)


def be_a_year_ahead(host: ScratchHost) -> None:
    host.answer(clock=NOW - 365 * 86400)


def be_a_year_behind(host: ScratchHost) -> None:
    """So that the manager's certificate is not yet good."""
    host.answer(clock=NOW + 365 * 86400)
    fails = "echo 'curl: (60) certificate is not yet valid' >&2; exit 60"
    host.program("usr/bin/curl", f"case $* in *--insecure*) busybox cat /answer ;; *) {fails} ;; esac")


def meet_another_ca(host: ScratchHost) -> None:
    fails = "echo 'curl: (60) unable to get local issuer certificate' >&2; exit 60"
    host.program("usr/bin/curl", f"case $* in *--insecure*) busybox cat /answer ;; *) {fails} ;; esac")


def lose_the_manager(host: ScratchHost) -> None:
    (host.root / "curl-status").write_text("7\n")
    (host.root / "curl-says").write_text("curl: (7) Failed to connect\n")


def meet_a_stranger(host: ScratchHost) -> None:
    (host.root / "answer").write_text("<html>Welcome</html>\n")


def meet_a_404(host: ScratchHost) -> None:
    (host.root / "curl-status").write_text("22\n")


def be_invited(state: str) -> Callable[[ScratchHost], None]:
    return lambda host: host.answer(state)


def have_a_bundle(*more: str, damaged: bool) -> Callable[[ScratchHost], None]:
    def have(host: ScratchHost) -> None:
        folder = host.root / "bundle"
        for file in ("wheels/a.whl", *more):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text("whole")
        sums = [f"{hashlib.sha256(b'whole').hexdigest()}  {file}\n" for file in ("wheels/a.whl", *more)]
        (folder / "SHA256SUMS").write_text("".join(sums))
        if damaged:
            (folder / "wheels/a.whl").write_text("half")

    return have


def test_who_came_by_a_link_is_told_how_to_get_the_next(host: ScratchHost) -> None:
    be_unsupported(host)
    done = host.install(render(replace(INVITATION, by_link=True)))
    assert done.returncode == 13
    next_link = f"skyctl workers install-script --worker {INVITATION.worker_id} --link"
    assert done.stderr.endswith(f"a link is good once; the next one: {next_link}\n")
    assert "a link is good once" not in host.install(SCRIPT).stderr


def be_locked(host: ScratchHost) -> None:
    (host.root / "flock-fails").touch()


def damage(script: str) -> str:
    head, start, tail = script.partition("\nH4sI")
    return f"{head}{start}A{tail}"


def pinning(wheel: bytes) -> str:
    """The script, with one library more: this wheel."""
    libraries = requirements()
    more = f"{libraries.rstrip()} \\\n    --hash=sha256:{hashlib.sha256(wheel).hexdigest()}\n"
    old, new = (hashlib.sha256(each.encode()).hexdigest() for each in (libraries, more))
    return SCRIPT.replace(libraries.rstrip(), more.rstrip()).replace(old, new)


NEW_INVITATION = "make a new invitation: skyctl workers install-script"
REFUSALS: list[tuple[int, Callable[[ScratchHost], None], tuple[str, ...], str, str]] = [
    (11, break_nothing, ("--frobnicate",), "'--frobnicate' is no option of this script", "see: sh SCRIPT --help"),
    (11, break_nothing, ("--offline",), "--offline: the folder is missing", "give the folder that"),
    (
        13,
        be_unsupported,
        (),
        "the distribution 'plan9' is not supported",
        "use a host with Debian, Ubuntu, a release of the RHEL",
    ),
    (14, be_of_another_architecture, (), "the architecture mips is not supported", "use a host of x86_64 or aarch64"),
    (15, lose_systemd, (), "systemd does not run here", "use a host that systemd has booted"),
    (16, fill_the_disk, (), "/opt has 9 MiB free, and 750 MiB are needed", "make room there"),
    (17, be_locked, (), "another run of this script has not ended", "look at it with"),
    (
        20,
        be_a_year_ahead,
        (),
        "this host's clock shows some day, 31536000 seconds ahead of the manager's",
        "set it, for example",
    ),
    (
        20,
        be_a_year_behind,
        (),
        "this host's clock shows some day, -31536000 seconds ahead of the manager's",
        "set it, for",
    ),
    (
        21,
        lose_the_manager,
        (),
        "the manager does not answer at https://manager.example:8642",
        "see on the manager that",
    ),
    (22, meet_another_ca, (), "its certificate is not trusted", "have the script generated again"),
    (23, meet_a_stranger, (), "is no skyctl that knows this script", "check SKYCTL_API_URL"),
    (23, meet_a_404, (), "is no skyctl that knows this script", "check SKYCTL_API_URL"),
    (24, be_invited("expired"), (), "this invitation has expired", NEW_INVITATION),
    (25, be_invited("used"), (), "this invitation has been used by another host", NEW_INVITATION),
    (26, be_invited("unknown"), (), "the manager does not know this invitation", NEW_INVITATION),
    (30, lose_packages, (), "there is no apt-get that works on this debian", "install it"),
    (34, lambda host: host.become("fedora", "dnf"), ("--with-nix",), "fedora has no package of Nix", "install it"),
    (43, break_nothing, ("--offline", "/nowhere"), "/nowhere holds no SHA256SUMS", "give the folder"),
    (
        43,
        have_a_bundle(damaged=True),
        ("--offline", "/bundle"),
        "is damaged: wheels/a.whl: FAILED",
        "copy it here again",
    ),
    (
        44,
        have_a_bundle(damaged=False),
        ("--offline", "/bundle"),
        "Python 3.9 or newer with venv is missing",
        "install python3",
    ),
]


@pytest.mark.parametrize(
    ("code", "breaks", "arguments", "says", "remedy"),
    REFUSALS,
    ids=[f"W{code}: {says}" for code, _, _, says, _ in REFUSALS],
)
def test_what_cannot_become_a_worker_is_refused_before_anything_is_changed(
    host: ScratchHost,
    code: int,
    breaks: Callable[[ScratchHost], None],
    arguments: tuple[str, ...],
    says: str,
    remedy: str,
) -> None:
    breaks(host)
    before = host.files()
    done = host.install(SCRIPT, *arguments)
    assert (done.returncode, done.stdout, host.files()) == (code, "", before)
    *_, error, hint = done.stderr.splitlines()
    assert error.startswith(f"error W{code}: ")
    assert says in error
    assert hint.startswith(f"hint: {remedy}")


def test_what_is_in_the_bundle_but_not_in_its_sums_is_refused(ready: ScratchHost) -> None:
    have_a_bundle(damaged=False)(ready)
    (ready.root / "bundle/wheels/b.whl").write_text("smuggled")
    before = ready.files()
    done = ready.install(SCRIPT, "--offline", "/bundle")
    assert (done.returncode, ready.files()) == (43, before)
    assert "error W43: --offline: /bundle/wheels/b.whl is not in SHA256SUMS" in done.stderr


def test_a_bundle_with_other_libraries_than_the_scripts_is_refused(ready: ScratchHost) -> None:
    have_a_bundle(damaged=False)(ready)
    before = ready.files()
    done = ready.install(SCRIPT, "--offline", "/bundle")
    assert (done.returncode, ready.files()) == (43, before)
    assert "error W43: --offline: /bundle/wheels/a.whl is no library of this script\nhint: make the " in done.stderr


def test_what_pip_does_not_find_in_a_bundle_has_another_remedy(ready: ScratchHost) -> None:
    have_a_bundle(damaged=False)(ready)
    ready.program("programs/python", f"case $* in *'-m pip'*) exit 1 ;; esac\n{PYTHON}")
    done = ready.install(pinning(b"whole"), "--offline", "/bundle")
    assert done.returncode == 42
    assert "\nhint: make the bundle with this manager, for x86_64" in done.stderr


def test_from_a_bundle_nothing_else_is_asked_for(host: ScratchHost) -> None:
    have_a_bundle("packages/python/python3.deb", "packages/docker/docker.deb", damaged=False)(host)
    done = host.install(pinning(b"whole"), "--offline", "/bundle")
    assert done.returncode == 0, done.stderr
    calls = host.changes()
    made = [call.partition("--no-install-recommends ")[2] for call in calls if call.startswith("apt-get ")]
    assert made == ["/bundle/packages/python/python3.deb", "/bundle/packages/docker/docker.deb"]
    (pip,) = [call for call in calls if "-m pip install" in call]
    assert pip.endswith("--no-index --find-links /bundle/wheels")
    assert "--require-hashes" in pip


def test_a_damaged_agent_is_refused_before_anything_is_changed(host: ScratchHost) -> None:
    before = host.files()
    done = host.install(damage(SCRIPT))
    assert (done.returncode, host.files()) == (40, before)
    assert "error W40: the agent in this script is damaged\nhint: have the script generated again" in done.stderr


def test_cut_off_at_every_50th_byte_it_changes_nothing(host: ScratchHost) -> None:
    before = host.files()
    for end in range(0, len(SCRIPT) - 1, 50):  # without its last line break it is whole
        host.install(SCRIPT[:end])
    assert (host.files(), host.calls()) == (before, [])


def test_a_dry_run_tells_what_would_be_done_and_changes_nothing(host: ScratchHost) -> None:
    before = host.files()
    done = host.install(SCRIPT, "--dry-run", "--with-nix")
    assert (done.returncode, host.files()) == (0, before)
    for told in (
        "ok: distribution: debian, packages by apt-get",
        "ok: manager: https://manager.example:8642 answers",
        "ok: clock: 0 s ahead",
        "would install Python: python3 python3-venv",
        "would install Docker: docker.io ca-certificates",
        "would install Nix: nix-setup-systemd",
        "would install skyagent",
        "would join the swarm of 10.0.0.1:2377",
        "nothing was changed",
    ):
        assert told in done.stderr
    assert not [call for call in host.changes() if call.startswith(("apt-get", "systemctl"))]


def test_a_run_that_is_ended_from_outside_says_so_and_leaves_no_half(ready: ScratchHost) -> None:
    ready.program(
        "programs/python", PYTHON.replace("*sysconfig*)", "*sysconfig*) kill -TERM $PPID; exit 1 ;; *nothing*)")
    )
    ready.add_python()
    done = ready.install(SCRIPT)
    assert done.returncode == 143
    assert "error W10: ended by a signal\nhint: run this script again" in done.stderr
    assert not list((ready.root / "opt").iterdir())
    left = [path.name for path in (ready.root / "run").glob("skypanel-*")]
    assert left == ["skypanel-worker-install"], "the folder of the lock, which the next run takes"


def test_a_run_whose_connection_is_lost_leaves_no_half(ready: ScratchHost) -> None:
    """It tells the next thing only once nobody listens any more."""
    waits = "*'-m venv'*) until [ -e /gone ]; do busybox sleep 0.01; done"
    ready.program("programs/python", f"case $* in {waits} ;; esac\n{PYTHON}")
    ready.add_python()
    before = set(ready.files())
    with ready.running(SCRIPT) as running:
        assert running.stderr
        told = iter(running.stderr.readline, "")
        assert any("installing skyagent" in line for line in told)
        running.stderr.close()
        (ready.root / "gone").touch()
        assert running.wait(timeout=PATIENCE_SECONDS) == 141
    left = {path for path in set(ready.files()) - before if not path.endswith(".log")}
    assert {path for path in left if not path.startswith("opt/skypanel-worker")} == {"gone", "script"}


def test_a_file_that_cannot_be_written_leaves_no_half_with_the_token(ready: ScratchHost) -> None:
    ready.program("bin/mv", 'case $* in *config.json*) exit 1 ;; esac; exec busybox mv "$@"')
    done = ready.install('mv() { /bin/mv "$@"; }\n' + SCRIPT)
    assert done.returncode == 1
    assert (
        "error W10: stopped unexpectedly with status 1\nhint: remove the cause and run this script again" in done.stderr
    )
    assert not (ready.root / "etc/skypanel-worker").exists()


def test_what_nobody_thought_of_is_told_too(host: ScratchHost) -> None:
    (host.root / "etc/os-release").unlink()
    before = host.files()
    done = host.install("tr() { return 77; }\nset -o pipefail\n" + SCRIPT)
    assert (done.returncode, host.files()) == (77, before)
    assert "error W10: stopped unexpectedly with status 77\nhint: " in done.stderr


def test_a_host_that_cannot_ask_yet_asks_once_python_is_there(host: ScratchHost) -> None:
    (host.root / "usr/bin/curl").unlink()
    done = host.install(SCRIPT)
    assert "later: manager: there is no curl, wget, Python or openssl here" in done.stderr
    assert any("urllib.request" in call for call in host.calls())


@pytest.mark.parametrize(
    ("manager", "distribution", "installs"),
    [
        (
            "apt-get",
            "debian",
            ["--no-install-recommends python3 python3-venv", "--no-install-recommends docker.io ca-certificates"],
        ),
        ("dnf", "fedora", ["install python3", "install moby-engine"]),
        ("dnf", "rhel", ["install python3", "install docker-ce"]),
        ("yum", "amzn", ["install python3", "install docker"]),
        ("zypper", "opensuse-leap", ["install --no-recommends python311", "install --no-recommends docker"]),
        ("apk", "alpine", ["add --wait 300 --quiet python3", "add --wait 300 --quiet docker"]),
    ],
)
def test_it_installs_what_is_missing(tmp_path: Path, manager: str, distribution: str, installs: list[str]) -> None:
    need_scratch_host()
    host = ScratchHost(tmp_path / "host", (manager,), distribution)
    done = host.install(SCRIPT)
    assert done.returncode == 0, done.stderr
    calls = host.changes()
    made = [call for call in calls if call.startswith(f"{manager} ") and not call.endswith((" update", " info"))]
    assert [call.endswith(words) for call, words in zip(made, installs, strict=True)] == [True, True], made
    assert "systemctl enable --now docker" in calls


@pytest.mark.parametrize(
    ("manager", "distribution", "installs"),
    [("apt-get", "debian", "python3.9 python3.9-venv"), ("dnf", "rhel", "python3.11")],
)
def test_where_python_is_too_old_it_installs_a_newer_one(
    tmp_path: Path, manager: str, distribution: str, installs: str
) -> None:
    need_scratch_host()
    host = ScratchHost(tmp_path / "host", (manager,), distribution)
    (host.root / "too-old").write_text("python3\n")
    ignores = "*--simulate* | *--assumeno*) exit 0 ;;"
    host.program(
        f"usr/bin/{manager}",
        f'case "$*" in {ignores} *python3.*) busybox cp /programs/python /usr/bin/python3.9 ;; esac',
    )
    host.add_python()
    host.add_docker()
    done = host.install(SCRIPT)
    assert done.returncode == 0, done.stderr
    assert any(call.endswith(f" {installs}") for call in host.calls())


def test_a_package_manager_that_does_not_work_is_not_the_only_one(tmp_path: Path) -> None:
    need_scratch_host()
    host = ScratchHost(tmp_path / "host", ("dnf", "yum"), "centos")
    host.program("usr/bin/dnf", "echo 'no module named dnf' >&2; exit 1")
    done = host.install(SCRIPT, "--dry-run")
    assert (done.returncode, "centos, packages by yum" in done.stderr) == (0, True), done.stderr
    host.program("usr/bin/yum", "exit 1")
    assert host.install(SCRIPT, "--dry-run").returncode == 30


def test_a_python_of_somebodys_own_that_does_not_work_is_passed_over(ready: ScratchHost) -> None:
    (ready.root / "usr/local/bin").mkdir(parents=True)
    ready.program("usr/local/bin/python3", "exit 1")
    done = ready.install("PATH=/usr/local/bin:$PATH\n" + SCRIPT)
    assert done.returncode == 0, done.stderr
    assert "installing Python" not in done.stderr


def test_a_host_on_which_nothing_can_ask_is_told_so(host: ScratchHost) -> None:
    host.program("usr/bin/curl", "echo 'curl: a library is missing' >&2; exit 127")
    host.program("programs/python", f"case $* in *urllib.request*) echo 'no ssl' >&2; exit 1 ;; esac\n{PYTHON}")
    done = host.install(SCRIPT)
    assert done.returncode == 21
    assert "cannot be asked: neither curl, wget, Python nor openssl works here" in done.stderr


def test_the_docker_command_comes_along_where_it_is_a_package_of_its_own(host: ScratchHost) -> None:
    host.program("usr/bin/apt-cache", "echo 'Package: docker-cli'; echo 'Package: docker-cli'")
    assert host.install(SCRIPT).returncode == 0
    assert any(call.endswith(" docker.io ca-certificates docker-cli") for call in host.calls())


def test_no_python_takes_code_from_the_folder_that_it_is_called_in(host: ScratchHost) -> None:
    assert host.install(SCRIPT).returncode == 0
    assert host.install(SCRIPT, "--uninstall").returncode == 0
    calls = [call.split() for call in host.calls() if call.startswith("python")]
    assert {"-m", "-c"} <= {word for call in calls for word in call}
    assert [call for call in calls if call[1] != "-I"] == []


def test_pip_keeps_no_cache_behind(ready: ScratchHost) -> None:
    assert ready.install(SCRIPT).returncode == 0
    assert [" --no-cache-dir " in call for call in ready.calls() if "-m pip install" in call] == [True]


def test_a_host_without_flock_is_refused_for_that(host: ScratchHost) -> None:
    before = host.files()
    done = host.install("command() { [ $2 != flock ]; }\n" + SCRIPT)  # busybox has one of its own
    assert (done.returncode, host.files()) == (18, before)
    assert "error W18: there is no flock here" in done.stderr


def test_a_package_that_cannot_be_installed_is_said(host: ScratchHost) -> None:
    host.program("usr/bin/apt-get", "case $* in --version) ;; *) exit 100 ;; esac")
    done = host.install(SCRIPT)
    assert done.returncode == 31
    assert "error W31: apt-get could not install " in done.stderr
    assert done.stderr.endswith("run this script again\n")
    assert not (host.root / "opt/skypanel-worker").exists()


def test_what_came_along_before_it_failed_is_remembered(host: ScratchHost) -> None:
    host.program(
        "usr/bin/apt-get", "case $* in *--no-remove*) busybox cp /programs/python /usr/bin/python3; exit 100 ;; esac"
    )
    assert host.install(SCRIPT).returncode == 31
    assert (host.root / "opt/skypanel-worker/packages").read_text() == "python3\n"


@pytest.fixture
def ready(host: ScratchHost) -> ScratchHost:
    """A host that has all that it needs."""
    host.add_python()
    host.add_docker()
    return host


def test_it_leaves_an_agent_that_starts_with_the_system(ready: ScratchHost) -> None:
    done = ready.install(SCRIPT)
    assert (done.returncode, done.stdout) == (0, "")
    config = ready.root / "etc/skypanel-worker/config.json"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o750
    assert json.loads(config.read_text()) == {
        "apiUrl": INVITATION.api_url,
        "authToken": INVITATION.token,
        "workerId": INVITATION.worker_id,
        "heartbeatInterval": 30,
    }
    unit = ready.root / "etc/systemd/system/skypanel-worker.service"
    assert (
        "ExecStart=/bin/sh /opt/skypanel-worker/run skyagent.launch --config /etc/skypanel-worker/config.json"
        in unit.read_text()
    )
    # the socket of this host is root's alone
    assert "\nUser=root\nSupplementaryGroups=\n" in unit.read_text()
    assert "the agent will run as root, without its capabilities: the Docker socket belongs to no group" in done.stderr
    systemctl = [call for call in ready.calls() if call.startswith("systemctl")]
    verbs = [
        "enable skypanel-worker",
        "daemon-reload",
        "restart skypanel-worker",
        "show --property StatusText skypanel-worker",
    ]
    assert systemctl == [f"systemctl {verb}" for verb in verbs]
    assert "systemctl status skypanel-worker" in done.stderr
    assert "journalctl -u skypanel-worker" in done.stderr


def test_no_program_is_given_a_secret_as_an_argument(ready: ScratchHost) -> None:
    assert ready.install(SCRIPT).returncode == 0
    calls = "\n".join(ready.calls())
    assert "pip install" in calls
    assert "secret" not in calls
    assert json.loads((ready.root / "join-body").read_text())["JoinToken"] == JOIN.token


def test_a_second_run_changes_nothing(ready: ScratchHost) -> None:
    assert ready.install(SCRIPT).returncode == 0
    ready.calls()
    before = ready.files()
    again = ready.install(SCRIPT)
    assert again.returncode == 0
    assert "no change" in again.stderr
    calls = ready.calls()
    assert "systemctl start skypanel-worker" in calls
    assert not [call for call in calls if " restart " in call or "-m pip" in call or "-m venv" in call]
    assert ready.files() == before


def test_another_token_restarts_the_agent(ready: ScratchHost) -> None:
    assert ready.install(SCRIPT).returncode == 0
    ready.calls()
    done = ready.install(render(replace(INVITATION, token="rotated")))
    assert done.returncode == 0
    assert "systemctl restart skypanel-worker" in ready.calls()
    assert json.loads((ready.root / "etc/skypanel-worker/config.json").read_text())["authToken"] == "rotated"


def test_a_run_that_was_interrupted_before_the_restart_is_finished_by_the_next(ready: ScratchHost) -> None:
    assert ready.install(SCRIPT).returncode == 0
    (ready.root / "restart-fails").touch()
    rotated = render(replace(INVITATION, token="rotated"))
    failed = ready.install(rotated)
    assert failed.returncode == 52
    assert "error W52: skypanel-worker does not start\nhint: see: journalctl -u skypanel-worker\n" in failed.stderr
    (ready.root / "restart-fails").unlink()
    ready.calls()
    assert ready.install(rotated).returncode == 0
    assert "systemctl restart skypanel-worker" in ready.calls()


def test_a_config_that_others_may_read_is_closed_again(ready: ScratchHost) -> None:
    assert ready.install(SCRIPT).returncode == 0
    config = ready.root / "etc/skypanel-worker/config.json"
    config.chmod(0o644)
    assert ready.install(SCRIPT).returncode == 0
    assert stat.S_IMODE(config.stat().st_mode) == 0o600


def test_an_engine_that_runs_is_left_alone(ready: ScratchHost) -> None:
    assert ready.install(SCRIPT).returncode == 0
    assert not [call for call in ready.calls() if "docker" in call and not call.startswith("python")]


def test_a_host_that_cannot_join_the_swarm_reports_all_the_same(ready: ScratchHost) -> None:
    (ready.root / "join-fails").touch()
    done = ready.install(SCRIPT)
    assert done.returncode == 50
    assert "error W50: this host has not joined the swarm\nhint: " in done.stderr
    assert "systemctl restart skypanel-worker" in ready.calls()


def test_a_host_that_the_manager_refuses_says_why(ready: ScratchHost) -> None:
    (ready.root / "agent-says").write_text("StatusText=refused failures=1 reason='it is a copy of web-1'\n")
    done = ready.install(SCRIPT)
    assert done.returncode == 60
    assert (
        "error W60: the manager refuses this host: 'it is a copy of web-1'\nhint: make a new invitation" in done.stderr
    )


def test_a_host_that_is_never_heard_is_no_success(ready: ScratchHost) -> None:
    (ready.root / "agent-says").write_text("StatusText=manager_unreachable reason='no route'\n")
    done = ready.install(SCRIPT)
    assert done.returncode == 61
    assert "error W61: the manager has confirmed no heartbeat in 90 seconds: manager_unreachable" in done.stderr
    assert "journalctl -u skypanel-worker" in done.stderr
    assert "HTTPS_PROXY" not in done.stderr
    behind_a_proxy = ready.install("https_proxy=http://somebody:secret@proxy:3128\n" + SCRIPT)
    assert behind_a_proxy.returncode == 61
    assert "systemctl edit skypanel-worker, [Service], Environment=HTTPS_PROXY=..." in behind_a_proxy.stderr


@pytest.mark.parametrize("state", ["used", "unknown", "expired"])
def test_a_host_that_is_this_worker_already_needs_no_good_invitation(ready: ScratchHost, state: str) -> None:
    assert ready.install(SCRIPT).returncode == 0
    ready.answer(state)
    again = ready.install(SCRIPT)
    assert again.returncode == 0
    assert "no change" in again.stderr


def test_a_token_that_was_rotated_on_the_host_stays(ready: ScratchHost) -> None:
    assert ready.install(SCRIPT).returncode == 0
    rotated = ready.root / "var/lib/skypanel-worker/token.json"
    rotated.parent.mkdir(parents=True)
    rotated.write_text("{}")
    before = ready.files()
    assert ready.install(SCRIPT).returncode == 0
    assert ready.files() == before


def test_the_managers_ca_is_written_for_the_agent_and_used_for_the_questions(ready: ScratchHost) -> None:
    done = ready.install(render(replace(INVITATION, ca_certificate="-----BEGIN CERTIFICATE-----\nx\n")))
    assert done.returncode == 0, done.stderr
    folder = ready.root / "etc/skypanel-worker"
    assert (folder / "ca.pem").read_text() == "-----BEGIN CERTIFICATE-----\nx\n"
    assert json.loads((folder / "config.json").read_text())["caFile"] == "/etc/skypanel-worker/ca.pem"
    assert any("--cacert /run/" in call for call in ready.calls())


def test_the_key_of_releases_is_pinned_for_the_launcher_and_not_handed_to_the_agent(ready: ScratchHost) -> None:
    pinning_key = render(replace(INVITATION, release_key="a-public-key"))
    assert "would pin the key of releases in" in ready.install(pinning_key, "--dry-run").stderr
    assert ready.install(pinning_key).returncode == 0
    file = ready.root / "etc/skypanel-worker/release.pub"
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("a-public-key\n", 0o644)
    assert not [call for call in ready.calls() if call.startswith("chown") and "release.pub" in call]
    unit = (ready.root / "etc/systemd/system/skypanel-worker.service").read_text()
    assert "\nEnvironment=SKYAGENT_RELEASE_KEY=/etc/skypanel-worker/release.pub\n" in unit
    assert "no change" in ready.install(pinning_key).stderr
    ready.calls()
    assert ready.install(render(replace(INVITATION, release_key="the-next"))).returncode == 0
    assert file.read_text() == "the-next\n"
    assert "systemctl restart skypanel-worker" in ready.calls()


def test_an_exported_variable_of_the_same_name_takes_no_secret_along(ready: ScratchHost) -> None:
    ready.program("bin/chmod", 'busybox env >>/environment; exec busybox chmod "$@"')
    done = ready.install('chmod() { /bin/chmod "$@"; }\nexport config=x swarm_join=y content=z\n' + SCRIPT)
    assert done.returncode == 0
    assert "secret" not in (ready.root / "environment").read_text()


def test_the_log_is_roots_alone_and_holds_no_secret(ready: ScratchHost) -> None:
    ready.program("usr/bin/curl", "busybox cat /answer")
    assert ready.install(SCRIPT).returncode == 0
    log = ready.root / "var/log/skypanel-worker-install.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "secret" not in log.read_text()


def test_uninstalled_nothing_is_left(host: ScratchHost) -> None:
    (host.root / "usr/local/bin").mkdir(parents=True)
    before = set(host.files())
    assert host.install(SCRIPT).returncode == 0
    host.add_docker()
    override = host.root / "etc/systemd/system/skypanel-worker.service.d"
    override.mkdir()
    (override / "override.conf").touch()
    (host.root / "usr/local/bin/skyagent.new").touch()  # of a run that was killed
    host.calls()
    done = host.install(SCRIPT, "--uninstall")
    assert done.returncode == 0, done.stderr
    assert f"skyctl workers remove {INVITATION.worker_id}" in done.stderr
    calls = host.calls()
    for call in ("systemctl disable --now skypanel-worker", "dpkg --purge python3"):
        assert call in calls
    assert [call.split()[0] for call in calls if "/swarm/leave" in call] == ["python"]
    assert set(host.files()) - before == {"usr/bin/python3", "usr/bin/dockerd", "run/docker.sock"}


@pytest.mark.parametrize(("comment", "removes"), [("made for the agent of skyctl", True), ("Somebody", False)])
def test_only_a_user_that_the_script_has_made_is_removed(ready: ScratchHost, comment: str, *, removes: bool) -> None:
    assert ready.install(SCRIPT).returncode == 0
    with (ready.root / "etc/passwd").open("a") as users:
        users.write(f"skyagent:x:998:998:{comment}:/nonexistent:/usr/sbin/nologin\n")
    ready.program("usr/bin/userdel", "")
    assert ready.install(SCRIPT, "--uninstall").returncode == 0
    assert ("userdel skyagent" in ready.calls()) == removes


def test_what_somebody_has_asked_for_since_stays(host: ScratchHost) -> None:
    new = "[ ! -e /usr/bin/python3 ] || printf 'installed %s\\n' curl libx python3"
    host.program("usr/bin/dpkg-query", f"echo installed base; {new}")
    host.program("usr/bin/apt-mark", "echo curl")
    assert host.install(SCRIPT).returncode == 0
    assert host.install(SCRIPT, "--uninstall").returncode == 0
    assert [call for call in host.calls() if call.startswith("dpkg ")] == ["dpkg --purge libx python3"]


def test_the_uninstaller_on_the_host_is_the_same(ready: ScratchHost) -> None:
    assert ready.install(SCRIPT).returncode == 0
    before = ready.files()
    there = (ready.root / "usr/local/bin/skypanel-worker-uninstall").read_text()
    (ready.root / "opt/skypanel-worker/packages").write_text("python3\nlibx\n")
    before = ready.files()
    told = ready.install(there, "--dry-run")
    for what in ("remove /etc/skypanel-worker", "leave the swarm", "remove the packages python3 libx"):
        assert f"would {what}" in told.stderr
    assert ready.install(there, "--help").stdout == "usage: skypanel-worker-uninstall [--dry-run]\n"
    assert ready.files() == before
    assert there == uninstaller()
    assert ready.install(there).returncode == 0
    assert not (ready.root / "etc/skypanel-worker").exists()


def test_a_host_that_cannot_leave_the_swarm_keeps_all_until_it_can(ready: ScratchHost) -> None:
    assert ready.install(SCRIPT).returncode == 0
    (ready.root / "leave-fails").touch()
    before = ready.files()
    done = ready.install(SCRIPT, "--uninstall")
    assert (done.returncode, ready.files()) == (65, before)
    assert (
        "error W65: this host could not leave the swarm, and nothing was removed\nhint: remove the cause" in done.stderr
    )
    (ready.root / "leave-fails").unlink()
    assert ready.install(SCRIPT, "--uninstall").returncode == 0
    assert not (ready.root / "opt/skypanel-worker").exists()
