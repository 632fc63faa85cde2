"""Which disks count, and how full they are: by file systems that are mounted for the test."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skyagent.disks import CONTAINERD_ROOT, Disks, data_folders
from tests.agent import fuse
from tests.agent.peers import Engine, Manager, Request
from tests.agent.process import Agent

Start = Callable[..., Agent]
SNAPSHOTTER = {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
SYSTEMS = {"Containerd": {"Address": "/run/containerd/containerd.sock"}}
ENGINES_OWN = {"Containerd": {"Address": "/var/run/docker/containerd/containerd.sock"}}
MIB = 2**20

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount file systems")


class Mounts:
    """Mounts of one test."""

    def __init__(self, folder: Path) -> None:
        self._top = folder
        self._mounted: list[Path] = []
        self._servers: dict[Path, int] = {}
        self._failing: list[fuse.Failing] = []

    def memory(self, name: str, options: str) -> Path:
        """A file system in memory, of a size or a number of files that is limited."""
        path = self.folder(name)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
        return path

    def served_by_nobody(self, name: str) -> Path:
        """A FUSE file system whose server answers nothing: whoever asks hangs."""
        path = self.folder(name)
        self._servers[path] = fuse.mount(path)
        return path

    def failing(self, name: str, error: int) -> Path:
        """A FUSE file system that cannot be measured, nor looked into: whoever asks gets the error."""
        path = self.folder(name)
        self._failing.append(fuse.Failing(path, error))
        return path

    def abandon(self, path: Path) -> None:
        """End its server: whoever asks gets ENOTCONN, who hangs as well."""
        os.close(self._servers.pop(path))

    def folder(self, name: str) -> Path:
        """A folder to mount something on, which is taken off again."""
        path = self._top / name
        path.mkdir(parents=True, exist_ok=True)
        self._mounted.append(path)
        return path

    def end(self) -> None:
        for path in list(self._servers):
            self.abandon(path)
        for path in reversed(self._mounted):
            subprocess.run(["umount", "--lazy", path], check=True)
        for failing in self._failing:
            failing.end()


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    mounts = Mounts(tmp_path / "mounts")
    yield mounts
    mounts.end()


def fill(folder: Path, megabytes: int) -> None:
    (folder / "filling").write_bytes(bytes(megabytes * MIB))


@pytest.mark.parametrize(
    ("info", "folders"),
    [
        ({"DockerRootDir": "/srv/docker"}, ("/srv/docker",)),
        ({"DockerRootDir": "/srv/docker", **SYSTEMS}, ("/srv/docker",)),
        ({"DockerRootDir": "/srv/docker", **SNAPSHOTTER, **SYSTEMS}, ("/srv/docker", CONTAINERD_ROOT)),
        ({"DockerRootDir": "/srv/docker", **SNAPSHOTTER}, ("/srv/docker", CONTAINERD_ROOT)),
        ({"DockerRootDir": "/srv/docker", **SNAPSHOTTER, **ENGINES_OWN}, ("/srv/docker",)),
        ({"DockerRootDir": None, "DriverStatus": 7, "Containerd": []}, ("/",)),
    ],
)
def test_the_engine_says_where_its_data_lies(info: dict[str, object], folders: tuple[str, ...]) -> None:
    assert data_folders(info) == folders


@pytest.mark.parametrize(
    ("config", "root"),
    [
        ('version = 2\nroot = "{}"\n[plugins]\n', "{}"),
        ("  root='{}'  # fast\n", "{}"),
        ('# root = "{}"\n[plugins]\nroot = "{}"\n', CONTAINERD_ROOT),
        ("", CONTAINERD_ROOT),
    ],
)
def test_layers_that_containerd_keeps_on_a_disk_of_their_own_count(
    manager: Manager, engine: Engine, start: Start, mounts: Mounts, tmp_path: Path, config: str, root: str
) -> None:
    """The host's containerd is set up for the test in a mount namespace of the agent's own."""
    engines, layers = mounts.memory("docker", "size=64m"), mounts.memory("layers", "size=128m")
    fill(layers, 96)
    (tmp_path / "config.toml").write_text(config.replace("{}", str(layers)))
    engine.info.update(DockerRootDir=str(engines), **SNAPSHOTTER, **SYSTEMS)
    scene = (
        "mkdir -p /etc/containerd /var/lib/containerd && mount -t tmpfs tmpfs /etc/containerd && "
        'cp "$1" /etc/containerd/config.toml && mount --bind "$2" /var/lib/containerd && shift 2 && exec "$@"'
    )
    elsewhere = layers if root == CONTAINERD_ROOT else engines
    under = ("unshare", "--mount", "sh", "-c", scene, "sh", str(tmp_path / "config.toml"), str(elsewhere))
    start(apiUrl=manager.url, under=under)
    assert _beat(manager, lambda beat: beat["diskPercent"] == 75.0)
    [registered] = manager.requests.await_some(lambda request: _capacity(request) == 0.1)
    assert registered


def test_what_is_mounted_within_the_engines_folder_counts(mounts: Mounts) -> None:
    root = mounts.memory("docker", "size=64m")
    fill(mounts.memory("docker/volumes", "size=16m"), 12)
    assert Disks().read((str(root),)) == (16 * MIB, 75.0)


def test_files_count_where_they_are_used_up_before_bytes(mounts: Mounts) -> None:
    root = mounts.memory("docker", "size=64m,nr_inodes=20")
    for number in range(19):
        (root / str(number)).touch()
    with pytest.raises(OSError, match="No space left"):
        (root / "one more").touch()
    assert Disks().read((str(root),)) == (64 * MIB, 100.0)


def test_the_size_is_that_of_one_disk_while_two_are_about_as_full(mounts: Mounts) -> None:
    small, large = mounts.memory("small", "size=16m"), mounts.memory("large", "size=128m")
    disks, folders = Disks(), (str(small), str(large))
    fill(small, 8)
    assert disks.read(folders) == (16 * MIB, 50.0)
    fill(large, 66)
    assert disks.read(folders) == (16 * MIB, 51.6)
    fill(large, 96)
    assert disks.read(folders) == (128 * MIB, 75.0)


def test_a_disk_below_a_closed_folder_is_that_one_or_none(mounts: Mounts, tmp_path: Path) -> None:
    """Seen by a user who may not look into the folder, as root of the test may."""
    root = mounts.memory("above", "size=64m")
    fill(root, 16)
    closed = root / "closed"
    (closed / "docker").mkdir(parents=True)
    other = mounts.memory("above/closed/other", "size=64m")
    closed.chmod(0o700)
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/pytest"):
            folder.chmod(0o755)
    assert _as_nobody(closed / "docker") == "25.0"
    assert _as_nobody(other) == "100.0"
    elsewhere = mounts.folder("elsewhere")
    subprocess.run(["mount", "--bind", other, elsewhere], check=True)
    assert _as_nobody(other) == "0.0"


def test_a_disk_that_fails_stands_as_last_known_and_then_counts_as_full(mounts: Mounts, tmp_path: Path) -> None:
    good, dead = mounts.memory("good", "size=64m"), mounts.served_by_nobody("dead")
    mounts.abandon(dead)
    fill(good, 16)
    root = tmp_path / "docker"
    for disks, later in ((Disks(), (64 * MIB, 25.0)), (Disks(known_seconds=0), (64 * MIB, 100.0))):
        _lead(root, dead)
        assert disks.read((str(root),)) == (0, 100.0), "nothing was ever known"
        _lead(root, good)
        assert disks.read((str(root),)) == (64 * MIB, 25.0)
        _lead(root, dead)
        assert disks.read((str(root),)) == later
        _lead(root, good)
        assert disks.read((str(root),)) == (64 * MIB, 25.0)


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("folder", ["", "docker"])
def test_a_disk_that_fails_is_unknown_and_not_the_one_above(
    mounts: Mounts, caplog: pytest.LogCaptureFixture, error: int, folder: str
) -> None:
    """As a broken disk and a stale mount of NFS answer, here by a server of the test; the kernel passes it on."""
    fill(mounts.memory("above", "size=64m"), 16)
    root = mounts.failing("above/disk", error) / folder
    assert Disks().read((str(root),)) == (0, 100.0)
    assert f"OSError: [Errno {error}] {os.strerror(error)}: '{root}'" in caplog.text.replace('\\"', '"')
    assert "last_known=none" in caplog.text


def test_a_folder_that_is_not_there_is_the_nearest_one_above(mounts: Mounts, tmp_path: Path) -> None:
    """By its own name, below a file, and behind a link; what else is mounted there has nothing to do with it."""
    root = mounts.memory("lib", "size=64m")
    fill(root, 16)
    fill(mounts.memory("lib/database", "size=16m"), 12)
    link = tmp_path / "docker"
    link.symlink_to(root / "docker")
    for folder in (root / "of" / "another/machine", root / "docker", root / "filling" / "docker", link):
        assert Disks().read((str(folder),)) == (64 * MIB, 25.0), folder


def test_a_disk_that_hangs_does_not_hold_up_the_beats(
    manager: Manager, engine: Engine, start: Start, mounts: Mounts
) -> None:
    root = mounts.served_by_nobody("docker")
    engine.info["DockerRootDir"] = str(root)
    agent = start(apiUrl=manager.url)
    assert "no answer about" in agent.says("action=disk_unknown")[0]
    assert _beat(manager, lambda beat: beat["diskPercent"] == 100.0, count=3)
    mounts.abandon(root)
    assert "not connected" in agent.says("action=disk_unknown", count=2)[1]


def _lead(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _beat(manager: Manager, wanted: Callable[[dict[str, float]], bool], count: int = 1) -> list[Request]:
    return manager.requests.await_some(
        lambda request: request.path.endswith("/heartbeat") and wanted(request.body), count
    )


def _capacity(request: Request) -> object:
    return (request.body or {}).get("capacity", {}).get("diskGb")


def _as_nobody(folder: Path) -> str:
    code = f"from skyagent.disks import Disks; print(Disks().read(({str(folder)!r},)).percent)"
    command = ["setpriv", "--reuid=nobody", "--clear-groups", "/usr/bin/python3", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    return done.stdout.strip()
