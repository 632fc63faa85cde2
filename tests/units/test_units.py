"""`skyctl systemd install` on a host of its own: in a mount namespace with another /etc, data folder and service
manager."""

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyctl import units
from skyctl.host import data_dir
from tests.conftest import clean_environment

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
        "wrote /etc/skyctl/skyctl.env",
        "handed /var/lib/skyctl over to skyctl",
        "wrote /etc/systemd/system/skyctl-serve.service",
        "wrote /etc/systemd/system/skyctl-monitor.service",
        "started skyctl-serve.service",
        "started skyctl-monitor.service",
    ]
    settings = host.root / "etc/skyctl/skyctl.env"
    assert (settings.stat().st_mode & 0o777, settings.stat().st_uid) == (0o600, 0)
    assert units.parse(settings.read_text()) == {"SKYCTL_DATABASE_URL": URL, "SKYCTL_SERVE_ARGS": "--host 0.0.0.0"}
    assert secret.stat().st_uid != 0
    for name in units.UNITS:
        text = (host.root / "etc/systemd/system" / name).read_text()
        assert "@@" not in text
        assert 'ExecStart="/usr/bin/python3" -I -m skyctl' in text
        assert "User=skyctl\n" in text
        assert URL not in text
    installed = host.snapshot()
    again = host.install()
    assert (again.returncode, again.stdout, again.stderr) == (0, "no change\n", "")
    assert host.snapshot() == installed
    gone = host.install("--uninstall")
    assert (gone.returncode, gone.stdout.splitlines()[-1]) == (0, "removed the system user skyctl"), gone.stderr
    assert "/etc/skyctl/skyctl.env and /var/lib/skyctl stay" in gone.stderr
    left = host.snapshot()
    new = {path.removeprefix(str(host.root)) for path in left.keys() - before.keys()}
    assert {path for path in new if not path.endswith("-")} == {
        "/etc/skyctl",
        "/etc/skyctl/skyctl.env",
        "/run/systemd/state",
    }
    assert secret.stat().st_uid == 0
    assert b"skyctl" not in left[f"{host.root}/etc/passwd"][2]
    assert host.install("--uninstall").stdout == "no change\n"


def test_a_dry_run_tells_all_and_changes_nothing(host: ScratchHost) -> None:
    before = host.snapshot()
    done = host.install("--dry-run", user="nobody", SKYCTL_DATABASE_URL=URL)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 7
    assert {line.partition(" have ")[0] for line in done.stdout.splitlines()} == {"would"}
    assert host.snapshot() == before


def test_without_a_database_the_settings_file_is_there_to_be_filled_in(host: ScratchHost) -> None:
    refused = host.install()
    assert refused.returncode == 2
    assert refused.stdout.splitlines()[-1] == "wrote /etc/skyctl/skyctl.env"
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
