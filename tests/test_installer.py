"""The install script: what it holds, and what it does on a host that is only a folder."""

import base64
import hashlib
import io
import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import skyagent
from skyctl.installer import InstallScript, agent_archive, render
from skyctl.model import SwarmJoin
from tests.scratch_host import ScratchHost, need_scratch_host

JOIN = SwarmJoin("10.0.0.1:2377", "SWMTKN-1-secret")
INVITATION = InstallScript(
    worker_id="0b6e6e4e-5f0c-4f6e-9d0e-2f7d1c0f3a51",
    token="eyJhbGciOi.worker.secret",
    api_url="https://manager.example:8642",
    heartbeat_interval_seconds=30,
    insecure=False,
    join=JOIN,
)
SCRIPT = render(INVITATION)
LAST_LINE = "main\n"
NEEDS_ROOT = "error: this script needs root"
HOSTILE = [
    "'",
    "''; touch x; '",
    '"',
    "$(touch x)",
    "`touch x`",
    "a\nmain\n",
    "\\",
    "@@agent @@config $config",
    "é\u2028",
    "-n",
]


@pytest.fixture
def host(tmp_path: Path) -> ScratchHost:
    need_scratch_host()
    return ScratchHost(tmp_path / "host")


def functions(script: str = SCRIPT) -> str:
    """The script without the line that starts it."""
    assert script.endswith("\n" + LAST_LINE)
    return script.removesuffix(LAST_LINE)


def shell(script: str, *arguments: str, interpreter: str = "sh", **options: Any) -> subprocess.CompletedProcess[str]:
    command = [interpreter, "-s", *arguments]
    return subprocess.run(command, input=script, capture_output=True, text=True, timeout=60, **options)


# What it holds


def test_shellcheck_finds_nothing() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("needs shellcheck")
    found = subprocess.run(["shellcheck", "-s", "sh", "-"], input=SCRIPT, capture_output=True, text=True, timeout=60)
    assert found.stdout + found.stderr == ""


@pytest.mark.parametrize("interpreter", ["sh", "dash", "bash"])
def test_it_parses(interpreter: str) -> None:
    if not shutil.which(interpreter):
        pytest.skip(f"needs {interpreter}")
    checked = subprocess.run([interpreter, "-n"], input=SCRIPT, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_same_worker_gets_the_same_script() -> None:
    assert render(INVITATION) == SCRIPT


def test_it_pins_what_the_manager_itself_runs_with() -> None:
    for package in ("httpx", "psutil"):
        assert f"{package}_version={version(package)}\n" in SCRIPT


def test_it_carries_the_agent_of_this_very_version() -> None:
    payload = SCRIPT.split("<<'AGENT'\n")[1].split("\nAGENT\n")[0]
    archive = base64.b64decode(payload)
    assert f"agent_sha256={hashlib.sha256(archive).hexdigest()}\n" in SCRIPT
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        carried = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    package = Path(skyagent.__file__).parent
    assert carried == {f"skyagent/{path.relative_to(package)}": path.read_bytes() for path in package.rglob("*.py")}
    assert f'__version__ = "{skyagent.__version__}"'.encode() in carried["skyagent/__init__.py"]
    assert f"agent_version={skyagent.__version__}\n" in SCRIPT


def test_the_archive_depends_on_nothing_but_the_files(tmp_path: Path) -> None:
    elsewhere = tmp_path / "skyagent"
    shutil.copytree(Path(skyagent.__file__).parent, elsewhere)
    for path in elsewhere.rglob("*.py"):
        os.utime(path, (1, 1))
    program = "import sys; from skyctl.installer import agent_archive; sys.stdout.buffer.write(agent_archive())"
    again = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        timeout=60,
    )
    assert again.stdout == agent_archive()


def test_the_secrets_do_not_show_where_the_values_are_shown() -> None:
    shown = repr(INVITATION)
    assert INVITATION.token not in shown
    assert JOIN.token not in shown


def test_the_secrets_are_only_ever_handed_over_on_stdin() -> None:
    uses = [line.strip() for line in functions().splitlines() if re.search(r"\$\{?(config|swarm_join)\b", line)]
    assert uses == ["$config", "$swarm_join"]
    for secret in (INVITATION.token, JOIN.token):
        assert SCRIPT.count(secret) == 1


def values_as_the_shell_sees_them(
    invitation: InstallScript, folder: Path
) -> tuple[dict[str, object], dict[str, object]]:
    show = "cat <<SHOW\n$config\n$swarm_join\nSHOW\n"
    done = shell(functions(render(invitation)) + show, cwd=folder)
    assert (done.returncode, done.stderr, list(folder.iterdir())) == (0, "", [])
    config, join = done.stdout.splitlines()
    return json.loads(config), json.loads(join)


@given(text=st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"])))
def test_no_value_breaks_out_of_its_quotes(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    hostile = InstallScript(text, text, text, 30, True, SwarmJoin(text, text))
    config, join = values_as_the_shell_sees_them(hostile, tmp_path_factory.mktemp("empty"))
    expected = {"apiUrl": text, "authToken": text, "workerId": text, "heartbeatInterval": 30, "insecure": True}
    assert config == expected
    assert (join["RemoteAddrs"], join["JoinToken"]) == ([text], text)


def test_only_an_insecure_worker_is_told_so(tmp_path: Path) -> None:
    config, _ = values_as_the_shell_sees_them(INVITATION, tmp_path)
    assert "insecure" not in config


# Cut off, damaged, or run by the wrong user


@pytest.mark.parametrize("interpreter", ["dash", "bash"])
def test_cut_off_anywhere_it_does_nothing(interpreter: str, tmp_path: Path) -> None:
    path = shutil.which(interpreter)
    if not path:
        pytest.skip(f"needs {interpreter}")

    def output(script: str) -> str:
        # Without any program in reach, whatever main does ends in its own error at once.
        return shell(script, interpreter=path, cwd=tmp_path, env={"PATH": "/nonexistent"}).stderr

    assert NEEDS_ROOT in output(SCRIPT)
    ends = {match.end() for match in re.finditer("\n", functions())}
    ends |= {random.Random(seed).randrange(len(SCRIPT) - len(LAST_LINE)) for seed in range(200)}
    ends |= {len(SCRIPT) - cut for cut in range(2, len(LAST_LINE))} - {len(SCRIPT) - 1}
    assert [end for end in sorted(ends) if NEEDS_ROOT in output(SCRIPT[:end])] == []
    assert list(tmp_path.iterdir()) == []


def unpack(script: str, environment: Path) -> subprocess.CompletedProcess[str]:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=60)
    return shell(functions(script) + 'unpack_agent "$1"\n', str(environment / "bin/python"))


def unpacked(environment: Path) -> dict[str, bytes]:
    packages = next(environment.glob("lib/python*/site-packages"))
    return {str(path.relative_to(packages)): path.read_bytes() for path in packages.glob("skyagent/**/*.py")}


def test_the_agent_unpacks_to_the_managers_own_files(tmp_path: Path) -> None:
    done = unpack(SCRIPT, tmp_path / "venv")
    assert (done.returncode, done.stderr) == (0, "")
    package = Path(skyagent.__file__).parent
    assert unpacked(tmp_path / "venv") == {
        f"skyagent/{p.relative_to(package)}": p.read_bytes() for p in package.rglob("*.py")
    }


@pytest.mark.parametrize("damage", ["another letter", "a line less", "not base64"])
def test_a_damaged_agent_is_refused(tmp_path: Path, damage: str) -> None:
    head, line, tail = re.split(r"(?<=<<'AGENT'\n)(.*\n)", SCRIPT, maxsplit=1)
    changed = ("B" if line[40] == "A" else "A").join((line[:40], line[41:]))
    bad = {"another letter": changed, "a line less": "", "not base64": line[:-2] + "\n"}[damage]
    done = unpack(head + bad + tail, tmp_path / "venv")
    assert (done.returncode, done.stderr) == (
        1,
        "error: the agent in this script is damaged\nhint: have the script generated again: skyctl workers install-script\n",
    )
    assert unpacked(tmp_path / "venv") == {}


def test_without_root_it_refuses() -> None:
    other: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    done = shell(SCRIPT, **other)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{NEEDS_ROOT}\nhint: run it as root, for example: sudo sh SCRIPT\n"


# On a host


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
