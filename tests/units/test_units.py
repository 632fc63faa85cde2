"""`skyctl systemd install` on a host of its own: in a mount namespace with another /etc, data folder and service
manager."""

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from skyctl import units
from skyctl.host import data_dir
from skyctl.host.certificates import Certificates
from tests.conftest import SECRET, clean_environment

ROOT = Path(__file__).parents[2]
URL = "postgresql://skyctl:it's p%40ss $HOME @db.example.com/skyctl"
ISOLATE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# The code and its libraries are where services may read them; the host's own files go with the namespace.
SCENE = """
set -e
for folder in /etc /var/lib /run/systemd /opt /home; do
  mkdir -p "$1$folder" "$folder"
done
cp -a /etc/. "$1/etc"
for folder in /etc /var/lib /run/systemd /opt /home; do mount --bind "$1$folder" "$folder"; done
sed -i '/^skyctl:/d' /etc/passwd /etc/shadow /etc/group /etc/gshadow
rm -rf /etc/systemd/system/skyctl-*
getent group docker >/dev/null || groupadd --system docker
mkdir -p /run/systemd/system /opt/code /opt/site /home/code
mount --bind "$2" /opt/code
mount --bind "$2" /home/code
mount --bind "$3" /opt/site
echo ready
exec sleep infinity
"""
# Remembers what is enabled and what runs, as the real one does.
SYSTEMCTL = """#!/bin/sh
state=/run/systemd/state; mkdir -p $state; echo "$*" >>$state/calls
for unit; do :; done
case "$*" in
  *is-active*) test -e $state/active.$unit ;;
  *is-enabled*) test -e $state/enabled.$unit ;;
  *disable*) rm -f $state/active.$unit $state/enabled.$unit ;;
  *enable*) touch $state/enabled.$unit ;;
  *restart*) test ! -e $state/broken && touch $state/active.$unit ;;
esac
"""


class ScratchHost:
    """A host with systemd; `root` is what it has of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        site = sysconfig.get_path("purelib")
        tool = root / "tools/systemctl"
        tool.parent.mkdir()
        tool.write_text(SYSTEMCTL)
        tool.chmod(0o755)
        self._process = subprocess.Popen(
            [*ISOLATE, "sh", "-c", SCENE, "sh", str(root), str(ROOT), site],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"
        pid = self._process.pid
        self._first = Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()

    def install(
        self, *arguments: str, code: str = "/opt/code", user: str = "root", **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        environment = {
            "PATH": f"{self.root}/tools:{os.environ['PATH']}:/usr/sbin",
            "PYTHONPATH": f"{code}:/opt/site",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        enter = ["nsenter", f"--target={self._first}", "--mount", "--pid", "--"]
        # An interpreter of the system, as the one of the tests may be in a home folder.
        return subprocess.run(
            [
                *enter,
                "setpriv",
                f"--reuid={user}",
                "/usr/bin/python3",
                "-m",
                "skyctl",
                "systemd",
                "install",
                *arguments,
            ],
            env=clean_environment() | environment | variables,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def snapshot(self) -> dict[str, tuple[int, int, bytes]]:
        """Every file with its mode, its owner and what it holds."""
        return {
            str(path): (path.lstat().st_mode, path.lstat().st_uid, path.read_bytes() if path.is_file() else b"")
            for folder in ("etc", "var", "run")
            for path in sorted((self.root / folder).rglob("*"))
            if not path.is_symlink() and path.name != "calls"
        }

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


@pytest.fixture
def host(open_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScratchHost]:
    if os.geteuid() != 0:
        pytest.skip("only root has mount namespaces")
    root = open_folder / tmp_path_factory.mktemp("host").name
    root.mkdir()
    root.chmod(0o755)
    made = ScratchHost(root)
    yield made
    made.stop()


def test_installed_again_nothing_changes_and_uninstalled_only_secrets_stay(host: ScratchHost) -> None:
    (host.root / "var/lib/skyctl/tls").mkdir(parents=True)
    secret = host.root / "var/lib/skyctl/tls/ca.key"
    secret.write_text("of root")
    host.install("--uninstall")  # useradd and its kin leave copies of what they change
    before = host.snapshot()
    done = host.install(SKYCTL_DATABASE_URL=URL, SKYCTL_SERVE_ARGS="--host 0.0.0.0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "made the system user skyctl",
        "made the system user skyctl-monitor",
        "wrote /etc/skyctl/skyctl.env",
        "wrote /etc/skyctl/monitor.env",
        "made /var/lib/skyctl-monitor",
        "handed /var/lib/skyctl over to skyctl",
        "handed /var/lib/skyctl-monitor over to skyctl-monitor",
        "gave both services the same signing secret",
        "wrote /etc/systemd/system/skyctl-serve.service",
        "wrote /etc/systemd/system/skyctl-monitor.service",
        "started skyctl-serve.service",
        "started skyctl-monitor.service",
    ]
    settings = host.root / "etc/skyctl/skyctl.env"
    assert (settings.stat().st_mode & 0o777, settings.stat().st_uid) == (0o600, 0)
    assert units.settings_files.parse(settings.read_text()) == {
        "SKYCTL_DATABASE_URL": URL,
        "SKYCTL_SERVE_ARGS": "--host 0.0.0.0",
    }
    assert secret.stat().st_uid != 0
    for name, user in zip(units.UNITS, ("skyctl", "skyctl-monitor"), strict=True):
        text = (host.root / "etc/systemd/system" / name).read_text()
        assert "@@" not in text
        assert 'ExecStart="/usr/bin/python3" -I -m skyctl' in text
        assert f"User={user}\nGroup={user}\n" in text
        assert URL not in text
    installed = host.snapshot()
    again = host.install()
    assert (again.returncode, again.stdout, again.stderr) == (0, "no change\n", "")
    assert host.snapshot() == installed
    gone = host.install("--uninstall")
    users = ["removed the system user skyctl", "removed the system user skyctl-monitor"]
    assert (gone.returncode, gone.stdout.splitlines()[-2:]) == (0, users), gone.stderr
    assert "/etc/skyctl/monitor.env, /var/lib/skyctl, /var/lib/skyctl-monitor stay" in gone.stderr
    left = host.snapshot()
    new = {path.removeprefix(str(host.root)) for path in left.keys() - before.keys()}
    assert {path for path in new if not path.endswith(("-", "/changes.lock"))} == {
        "/etc/skyctl",
        "/etc/skyctl/skyctl.env",
        "/etc/skyctl/monitor.env",
        "/run/systemd/state",
        "/var/lib/skyctl/jwt-secret",
        "/var/lib/skyctl-monitor",
        "/var/lib/skyctl-monitor/jwt-secret",
    }
    assert secret.stat().st_uid == 0
    assert b"skyctl" not in left[f"{host.root}/etc/passwd"][2]
    assert host.install("--uninstall").stdout == "no change\n"


FORMER_SETTINGS = """# Read by both
# PostgreSQL to use
SKYCTL_DATABASE_URL=postgresql://db/skyctl
# where alerts go
SKYCTL_ALERT_CHANNELS='json://hooks.example.com/a
 json://hooks.example.com/b'
#DOCKER_HOST=
SKYCTL_SERVE_ARGS=it's # as before
SKYCTL_MONITOR_ARGS="--metrics-port \\
9464"
; the end
"""


def test_an_installation_of_one_user_becomes_one_of_two(host: ScratchHost) -> None:
    data, monitors = host.root / "var/lib/skyctl", host.root / "var/lib/skyctl-monitor"
    assert host.install("--user", "sky", SKYCTL_DATABASE_URL=URL).returncode == 0
    assert host.install("--uninstall").returncode == 0
    shutil.rmtree(monitors)
    for name in units.UNITS:  # as one before
        (host.root / "etc/systemd/system" / name).write_text("[Service]\nUser=sky\nGroup=sky\n")
    data.mkdir(exist_ok=True)
    Certificates(data).make(["manager.example.com"], datetime.now(UTC))
    (data / "tls/names").unlink()
    (data / "jwt-secret").write_text("a-secret-from-before")
    before = {name: (data / "tls" / name).read_bytes() for name in ("ca.key", "ca.pem", "server.key", "server.pem")}
    settings = host.root / "etc/skyctl"
    (settings / "monitor.env").unlink()
    (settings / "skyctl.env").write_text(FORMER_SETTINGS)
    former = units.settings_files.parse(FORMER_SETTINGS)

    done = host.install()
    assert done.returncode == 0, done.stderr
    assert "made the system user sky-monitor" in done.stdout
    assert "left what is the monitor's out of /etc/skyctl/skyctl.env" in done.stdout
    shared, own = ((settings / name).read_text() for name in ("skyctl.env", "monitor.env"))
    assert units.settings_files.parse(shared) | units.settings_files.parse(own) == former
    assert set(units.settings_files.parse(own)) == {"SKYCTL_ALERT_CHANNELS", "SKYCTL_MONITOR_ARGS"}
    assert "hooks.example.com" not in shared
    assert {(settings / name).stat().st_mode & 0o777 for name in ("skyctl.env", "monitor.env")} == {0o600}
    assert {name: (monitors / "tls" / name).read_bytes() for name in ("ca.key", "ca.pem")} == {
        name: before[name] for name in ("ca.key", "ca.pem")
    }
    assert (monitors / "tls/names").read_text() == "manager.example.com\n"
    left = {path.name for path in (data / "tls").iterdir()} - {"changes.lock"}
    assert left == {"ca.pem", "server.key", "server.pem"}
    assert {(folder / "jwt-secret").read_text() for folder in (data, monitors)} == {"a-secret-from-before"}
    assert monitors.stat().st_mode & 0o777 == 0o700
    owners = {path.stat().st_uid for path in (data, data / "tls/server.key", data / "jwt-secret")}
    others = {path.stat().st_uid for path in (monitors, monitors / "tls/ca.key", monitors / "jwt-secret")}
    assert (len(owners), len(others), owners & others, 0 in owners | others) == (1, 1, set(), False)
    assert "User=sky\n" in (host.root / "etc/systemd/system" / units.UNITS[0]).read_text()
    assert host.install().stdout == "no change\n"

    (data / "tls/ca.key").write_text("what serve made itself")
    (data / "tls/ca.pem").write_text("what serve made itself")
    assert host.install().returncode == 0
    assert (monitors / "tls/ca.pem").read_bytes() == before["ca.pem"], "nothing of serve's is taken for the authority"


def test_what_root_puts_back_beside_an_empty_folder_of_the_monitor_is_moved(host: ScratchHost) -> None:
    data, monitors = host.root / "var/lib/skyctl", host.root / "var/lib/skyctl-monitor"
    assert host.install(SKYCTL_DATABASE_URL=URL).returncode == 0
    for folder in (data, monitors):
        (folder / "jwt-secret").unlink()
    (data / "jwt-secret").write_text(f"{SECRET}\n")
    other = host.root / "other"
    Certificates(other).make(["manager.example.com"], datetime.now(UTC))
    shutil.copytree(other / "tls", data / "tls")
    done = host.install()
    assert done.returncode == 0, done.stderr
    assert "gave /var/lib/skyctl-monitor the authority" in done.stdout
    for name in ("ca.key", "ca.pem"):
        assert (monitors / "tls" / name).read_bytes() == (other / "tls" / name).read_bytes()
    assert (monitors / "tls/ca.key").stat().st_uid == monitors.stat().st_uid != 0
    assert not (data / "tls/ca.key").exists()
    assert {(folder / "jwt-secret").read_text() for folder in (data, monitors)} == {f"{SECRET}\n"}
    assert host.install().stdout == "no change\n"

    (monitors / "tls/ca.pem").unlink()
    for name in ("ca.key", "ca.pem"):
        (data / "tls" / name).write_text("what serve made itself")
        os.chown(data / "tls" / name, data.stat().st_uid, data.stat().st_gid)
    host.install()
    assert not (monitors / "tls/ca.pem").exists()


def test_what_both_settings_files_say_otherwise_is_refused(host: ScratchHost) -> None:
    assert host.install(SKYCTL_DATABASE_URL=URL).returncode == 0
    for name, value in (("skyctl.env", "tcp://a:2375"), ("monitor.env", "tcp://b:2375")):
        with (host.root / "etc/skyctl" / name).open("a") as file:
            file.write(f"DOCKER_HOST={value}\n")
    refused = host.install()
    assert refused.returncode == 2
    assert "DOCKER_HOST is set in /etc/skyctl/skyctl.env and otherwise in /etc/skyctl/monitor.env" in refused.stderr
    text = (host.root / "etc/skyctl/monitor.env").read_text()
    (host.root / "etc/skyctl/monitor.env").write_text(text.replace("tcp://b", "tcp://a"))
    assert host.install().returncode == 0
    assert "DOCKER_HOST=" not in (host.root / "etc/skyctl/skyctl.env").read_text()


def test_a_data_folder_for_both_is_refused(host: ScratchHost) -> None:
    assert host.install(SKYCTL_DATABASE_URL=URL).returncode == 0
    with (host.root / "etc/skyctl/skyctl.env").open("a") as file:
        file.write("SKYCTL_DATA_DIR=/var/lib/skyctl\n")
    refused = host.install()
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: SKYCTL_DATA_DIR is set in a settings file")


def test_a_dry_run_tells_all_and_changes_nothing(host: ScratchHost) -> None:
    before = host.snapshot()
    done = host.install("--dry-run", user="nobody", SKYCTL_DATABASE_URL=URL)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 12
    assert {line.partition(" have ")[0] for line in done.stdout.splitlines()} == {"would"}
    assert host.snapshot() == before


def test_without_a_database_the_settings_file_is_there_to_be_filled_in(host: ScratchHost) -> None:
    refused = host.install()
    assert refused.returncode == 2
    assert refused.stdout.splitlines()[-2:] == ["wrote /etc/skyctl/skyctl.env", "wrote /etc/skyctl/monitor.env"]
    assert refused.stderr.startswith("error: SKYCTL_DATABASE_URL is not set in /etc/skyctl/skyctl.env")
    assert not list((host.root / "etc/systemd/system").glob("skyctl-*"))
    file = host.root / "etc/skyctl/skyctl.env"
    assert "#SKYCTL_DATABASE_URL=\n" in file.read_text()
    file.write_text("SKYCTL_DATABASE_URL=postgresql://db/skyctl\nWORKER_CPU_LIMIT=much\n")
    wrong = host.install()
    assert wrong.returncode == 2
    assert "WORKER_CPU_LIMIT: 'much'" in wrong.stderr
    file.write_text("SKYCTL_DATABASE_URL=postgresql://db/skyctl\n")
    assert host.install().returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_service_that_does_not_start_is_named_and_tried_again(host: ScratchHost) -> None:
    broken = host.root / "run/systemd/state/broken"
    broken.parent.mkdir()
    broken.touch()
    failed = host.install(SKYCTL_DATABASE_URL=URL)
    assert failed.returncode == 1
    assert failed.stderr.splitlines() == [
        "error: skyctl-serve.service does not start",
        "hint: see `journalctl -u skyctl-serve.service -n 20`, then run this again",
    ]
    broken.unlink()
    assert host.install().stdout.splitlines() == ["started skyctl-serve.service", "started skyctl-monitor.service"]


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "words"),
    [
        (["--user", "root"], {}, 2, "--user: 'root' is not a system user's name"),
        (["--user", "a b"], {}, 2, "--user: 'a b' is not a system user's name"),
        ([], {"SKYCTL_CONFIG": "/x.yaml"}, 2, "SKYCTL_CONFIG, --config: the services read no such file"),
        ([], {"SKYCTL_ALERT_CHANNELS": "json://a\njson://b"}, 2, "SKYCTL_ALERT_CHANNELS: the value holds a line's end"),
    ],
)
def test_what_it_refuses(
    host: ScratchHost, arguments: list[str], variables: dict[str, str], code: int, words: str
) -> None:
    before = host.snapshot()
    refused = host.install("--dry-run", *arguments, SKYCTL_DATABASE_URL=URL, **variables)
    assert (refused.returncode, refused.stderr.startswith(f"error: {words}")) == (code, True), refused.stderr
    assert host.snapshot() == before


def test_who_and_where_it_refuses(host: ScratchHost) -> None:
    assert host.install(user="nobody").stderr.splitlines()[0] == "error: only root installs services"
    hidden = host.install(code="/home/code", SKYCTL_DATABASE_URL=URL)
    assert hidden.returncode == 4
    assert re.match("error: skyctl runs from /home/code/.*, and the services may not enter /home\n", hidden.stderr)
    (host.root / "run/systemd/system").rmdir()
    assert host.install().stderr.splitlines()[0] == "error: this host was not booted with systemd"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for others")
def test_what_root_writes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, 65_534, 65_534)
    data_dir.write_private(tmp_path / "secret", "text")
    written = (tmp_path / "secret").stat()
    assert (written.st_uid, written.st_gid, written.st_mode & 0o777) == (65_534, 65_534, 0o600)
