"""Root's commands in a data folder of another user: no link leads them elsewhere, and no exchange of a folder does."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from skyctl.domain.errors import Refused, SkyctlError
from skyctl.host import data_dir, folders, runtime_dir
from skyctl.host.certificates import Certificates
from skyctl.host.keyring import Keyring
from skyctl.host.postgres import EmbeddedPostgres
from skyctl.host.postgres_binaries import system_account
from skyctl.host.runtime_dir import RuntimeFolder
from tests.conftest import clean_environment
from tests.security import adversary

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led to what is root's")

NOW = datetime.now(UTC)
SERVICE = adversary.NUMBER
Scene = tuple[Callable[[], object], Callable[[], object]]


@pytest.fixture
def theirs(open_folder: Path) -> Path:
    """The data folder of the services' user."""
    folder = open_folder / uuid4().hex[:8]
    folder.mkdir()
    os.chown(folder, SERVICE, SERVICE)
    return folder


@pytest.fixture
def ours(open_folder: Path) -> Iterator[Path]:
    """A secret of root's elsewhere, which is as it was after the test."""
    folder = open_folder / f"{uuid4().hex[:8]}.etc"
    folder.mkdir(mode=0o755)
    secret = folder / "shadow"
    secret.write_text("root's")
    secret.chmod(0o600)
    before = folder.stat(), sorted(folder.iterdir())
    yield secret
    after = folder.stat(), sorted(folder.iterdir())
    assert (secret.stat().st_uid, secret.stat().st_mode & 0o777, secret.read_text()) == (0, 0o600, "root's")
    assert (after[0].st_uid, after[0].st_mode, after[1]) == (before[0].st_uid, before[0].st_mode, before[1])


def test_handing_over_follows_no_link(theirs: Path, ours: Path) -> None:
    (theirs / "tls").symlink_to(ours.parent)
    (theirs / "symbolic").symlink_to(ours)
    (theirs / "hard").hardlink_to(ours)
    (theirs / "file").touch()
    assert folders.strangers(theirs, SERVICE, "postgres") == [theirs / "file"]
    folders.hand_over(theirs, SERVICE, SERVICE, "postgres")
    assert (theirs / "file").stat().st_uid == SERVICE


def test_handing_over_is_not_led_by_a_folder_that_is_exchanged(theirs: Path, ours: Path) -> None:
    def scene() -> Scene:
        folder, kept = theirs / "tls", theirs / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        if folder.is_symlink():
            folder.unlink()
        folder.mkdir(exist_ok=True)
        os.chown(folder, SERVICE, SERVICE)
        (folder / ours.name).touch()
        os.chown(folder / ours.name, 0, 0)

        def exchange() -> None:
            folder.rename(kept)
            folder.symlink_to(ours.parent)

        return hand_over, exchange

    def hand_over() -> None:
        with suppress(OSError, Refused):
            folders.hand_over(theirs, SERVICE, SERVICE, "postgres")

    assert adversary.at_each_step(scene) > 3


def test_handing_over_is_not_led_by_a_second_name_that_takes_a_files_place(
    theirs: Path, ours: Path, open_folder: Path
) -> None:
    """As where the kernel lets everybody give a file of root's a second name."""
    home = open_folder / f"{uuid4().hex[:8]}.home"
    home.mkdir()
    os.chown(home, SERVICE, SERVICE)

    def scene() -> Scene:
        file, spare = theirs / "file", home / uuid4().hex
        file.unlink(missing_ok=True)
        file.touch()
        spare.hardlink_to(ours)
        return lambda: folders.hand_over(theirs, SERVICE, SERVICE, "postgres"), lambda: spare.rename(file)

    assert adversary.at_each_step(scene) > 3


def test_handing_over_ends_where_a_folder_has_no_end(theirs: Path) -> None:
    deepest = theirs.joinpath(*("d" * 200))
    deepest.mkdir(parents=True)
    with pytest.raises(Refused, match="64 folders deep"):
        folders.hand_over(theirs, SERVICE, SERVICE, "postgres")


def test_handing_over_stays_on_the_file_system(theirs: Path) -> None:
    """Another one that is mounted there belongs to somebody else."""
    (theirs / "mounted").mkdir()
    (theirs / "file").touch()
    scene = 'mount -t tmpfs tmpfs "$1/mounted" && touch "$1/mounted/file" && "$2" -c "$3" "$1" && '
    scene += 'stat -c %u "$1"/*/file "$1/file"'
    hand_over = "import sys; from pathlib import Path; from skyctl.host import folders\n"
    hand_over += f"folders.hand_over(Path(sys.argv[1]), {SERVICE}, {SERVICE}, 'postgres')"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", scene, "sh", str(theirs), sys.executable, hand_over],
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert (done.stderr, done.stdout.split()) == ("", ["0", str(SERVICE)])


def test_a_folder_where_others_could_put_another_is_refused(open_folder: Path) -> None:
    above = open_folder / uuid4().hex[:8]
    (above / "data").mkdir(parents=True)
    above.chmod(0o777)
    with pytest.raises(Refused, match="everybody may write in"):
        folders.open_folder(above / "data")
    above.chmod(0o1777)  # as /tmp: everybody may write, and nobody moves what is another's
    folders.open_folder(above / "data").__exit__()
    os.chown(above, SERVICE, SERVICE)
    with pytest.raises(Refused, match=f"belongs to user {SERVICE}"):
        folders.open_folder(above / "data")
    os.chown(above, 0, 0)
    (above / "link").symlink_to(above / "data")
    os.chown(above / "link", SERVICE, SERVICE, follow_symlinks=False)
    with pytest.raises(Refused, match="the link link"):
        folders.open_folder(above / "link")


def test_nobody_else_changes_the_folder_where_roots_processes_keep_their_metrics(
    theirs: Path, ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They open files there by path, and would follow a link."""
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    kept = RuntimeFolder(runtime_dir.above(theirs), "metrics")
    kept.make()
    try:
        with adversary.acting():
            with pytest.raises(PermissionError):
                (kept.path / "counter_1.db").symlink_to(ours)
            with pytest.raises(PermissionError):
                kept.path.rename(kept.path.with_suffix(".moved"))
    finally:
        kept.remove()


def take_up(folder: Path) -> None:
    with data_dir.only_up(folder, "http://localhost"):
        pass


def run_postgres(folder: Path) -> None:
    account = system_account(folder)
    os.chown(folder, account.pw_uid, account.pw_gid)
    with EmbeddedPostgres(folder).running():
        pass


def rotate(folder: Path) -> None:
    Keyring(folder, str).rotate(NOW, NOW)


def make_certificates(folder: Path) -> None:
    Certificates(folder).make(["localhost"], NOW, renew=True)


@pytest.mark.parametrize("link", ["symbolic", "hard"])
@pytest.mark.parametrize(
    ("work", "name"),
    [
        (take_up, "up.lock"),
        (rotate, "jwt-secret"),
        (rotate, "changes.lock"),
        (make_certificates, "tls/changes.lock"),
        (make_certificates, "tls/ca.key"),
        (run_postgres, "postgres.lock"),
        (run_postgres, "postgres.users"),
    ],
)
def test_a_link_in_the_place_of_a_file_is_refused(
    theirs: Path, ours: Path, link: str, work: Callable[[Path], None], name: str
) -> None:
    place = theirs / name
    if name.startswith("tls"):
        make_certificates(theirs)
        place.unlink()
    place.symlink_to(ours) if link == "symbolic" else place.hardlink_to(ours)
    with pytest.raises(SkyctlError, match=f"{name} (is a link|has a second name)"):
        work(theirs)


@pytest.mark.parametrize(("work", "name"), [(make_certificates, "tls"), (run_postgres, "postgres")])
def test_a_link_in_the_place_of_a_folder_is_refused(
    theirs: Path, ours: Path, work: Callable[[Path], None], name: str
) -> None:
    (theirs / name).symlink_to(ours.parent)
    with pytest.raises(Refused, match=f"{name} is a link"):
        work(theirs)


def test_a_pipe_in_the_place_of_a_file_is_refused(theirs: Path) -> None:
    """Who opened it would wait for ever."""
    make_certificates(theirs)
    (theirs / "tls/server.pem").unlink()
    os.mkfifo(theirs / "tls/server.pem")
    with pytest.raises(Refused, match=r"server\.pem is no file"):
        Certificates(theirs).inspect()


@pytest.mark.parametrize(
    ("work", "name"), [(rotate, "jwt-secret"), (take_up, "up.lock"), (make_certificates, "tls/server.key")]
)
def test_no_exchange_leads_what_is_written_elsewhere(
    theirs: Path, ours: Path, work: Callable[[Path], None], name: str
) -> None:
    """At each step, the file is a link suddenly, or its folder."""
    for exchanged, target in ((theirs / name, ours), ((theirs / name).parent, ours.parent)):
        if exchanged == theirs:
            continue

        def scene(exchanged: Path = exchanged, target: Path = target) -> Scene:
            for child in theirs.iterdir():
                shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
            work(theirs)

            def exchange() -> None:
                exchanged.rename(theirs / "kept")
                exchanged.symlink_to(target)

            return broken_off_or_not, exchange

        def broken_off_or_not() -> None:
            with suppress(OSError, SkyctlError):
                work(theirs)

        assert adversary.at_each_step(scene) > 3
