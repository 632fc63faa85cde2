"""What the install script does, on hosts that are only folders: which programs it calls, and which files it leaves."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from skyctl.installer import render
from tests.scratch_host import ScratchHost, need_scratch_host
from tests.test_installer import INVITATION, JOIN, SCRIPT


@pytest.fixture
def host(tmp_path: Path) -> ScratchHost:
    need_scratch_host()
    return ScratchHost(tmp_path / "host")


def test_without_systemd_it_changes_nothing(host: ScratchHost) -> None:
    (host.root / "run/systemd/system").rmdir()
    before = host.files()
    done = host.install(SCRIPT)
    assert (done.returncode, host.files()) == (1, before)
    assert "error: systemd does not run here" in done.stderr
    assert "hint: use a host that systemd has booted" in done.stderr


def test_without_a_package_manager_it_changes_nothing(tmp_path: Path) -> None:
    need_scratch_host()
    host = ScratchHost(tmp_path / "host", managers=())
    before = host.files()
    done = host.install(SCRIPT)
    assert (done.returncode, host.files()) == (1, before)
    assert "error: there is no apt-get, dnf, yum, zypper or apk to install Python 3.9" in done.stderr


@pytest.mark.parametrize(
    ("manager", "distribution", "installs"),
    [
        ("apt-get", "debian", ["--no-install-recommends python3 python3-venv", "--no-install-recommends docker.io"]),
        ("dnf", "fedora", ["install python3", "install moby-engine"]),
        ("dnf", "rhel", ["install python3", "install docker-ce"]),
        ("yum", "amzn", ["install python3", "install docker"]),
        ("zypper", "opensuse-leap", ["install python311", "install docker"]),
        ("apk", "alpine", ["add --quiet python3", "add --quiet docker"]),
    ],
)
def test_it_installs_what_is_missing(tmp_path: Path, manager: str, distribution: str, installs: list[str]) -> None:
    need_scratch_host()
    host = ScratchHost(tmp_path / "host", (manager,), distribution)
    done = host.install(SCRIPT)
    assert done.returncode == 0, done.stderr
    calls = host.calls()
    made = [call for call in calls if call.startswith(manager) and not call.endswith(" update")]
    assert [call.endswith(words) for call, words in zip(made, installs, strict=True)] == [True, True], made
    assert "systemctl enable --now docker" in calls


@pytest.mark.parametrize(("manager", "installs"), [("apt-get", "python3.9 python3.9-venv"), ("dnf", "python3.11")])
def test_where_python_is_too_old_it_installs_a_newer_one(tmp_path: Path, manager: str, installs: str) -> None:
    need_scratch_host()
    host = ScratchHost(tmp_path / "host", (manager,))
    (host.root / "too-old").write_text("python3\n")
    host.program(
        f"usr/bin/{manager}", 'case "$*" in *python3.*) busybox cp /programs/python /usr/bin/python3.9 ;; esac'
    )
    host.add_python()
    done = host.install(SCRIPT)
    assert done.returncode == 0, done.stderr
    assert any(call.endswith(f" {installs}") for call in host.calls())


def test_a_package_that_cannot_be_installed_is_said(host: ScratchHost) -> None:
    host.program("usr/bin/apt-get", "exit 100")
    done = host.install(SCRIPT)
    assert done.returncode == 1
    assert done.stderr.endswith(
        "error: apt-get could not install python3 python3-venv\nhint: its output is in /var/log/skypanel-worker-install.log\n"
    )


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
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    assert json.loads(config.read_text()) == {
        "apiUrl": INVITATION.api_url,
        "authToken": INVITATION.token,
        "workerId": INVITATION.worker_id,
        "heartbeatInterval": 30,
    }
    unit = ready.root / "etc/systemd/system/skypanel-worker.service"
    assert (
        "ExecStart=/opt/skypanel-worker/venv/bin/python -m skyagent --config /etc/skypanel-worker/config.json"
        in unit.read_text()
    )
    systemctl = [call for call in ready.calls() if call.startswith("systemctl")]
    assert systemctl == [
        f"systemctl {verb}" for verb in ("enable skypanel-worker", "daemon-reload", "restart skypanel-worker")
    ]
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
    assert failed.returncode == 1
    assert failed.stderr.endswith("error: skypanel-worker does not start\nhint: see: journalctl -u skypanel-worker\n")
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
    assert done.returncode == 1
    assert "error: this host has not joined the swarm\nhint: " in done.stderr
    assert "systemctl restart skypanel-worker" in ready.calls()
