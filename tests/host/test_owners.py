"""What another user has, and how to go on: whose it is, and sudo."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyctl.domain.errors import ValidationError
from skyctl.host import data_dir, owners
from tests.security.adversary import NUMBER, acting
from tests.support.in_process import InProcess

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
DAEMON = 1


@pytest.fixture
def kept(open_folder: Path) -> Iterator[Path]:
    """A folder that lets nobody but its owner in."""
    folder = open_folder / "kept"
    folder.mkdir(mode=0o700)
    yield folder
    folder.rmdir()


@pytest.mark.parametrize(
    ("owner", "mode", "whose", "remedy"),
    [
        (0, 0o700, "belongs to root", "sudo skyctl ..."),
        (DAEMON, 0o700, "belongs to daemon", "sudo skyctl ..., or as that user: sudo -u daemon skyctl ..."),
        (NUMBER + 1, 0o700, f"belongs to user {NUMBER + 1}", "sudo skyctl ..."),
        (NUMBER, 0o000, "is yours, and its mode forbids it", "chmod u+rwX {}"),
        (DAEMON, 0o755, "belongs to daemon", "sudo skyctl ..., or as that user: sudo -u daemon skyctl ..."),
    ],
)
def test_it_is_said_whose_a_folder_is(kept: Path, owner: int, mode: int, whose: str, remedy: str) -> None:
    os.chown(kept, owner, owner)
    kept.chmod(mode)
    with acting():
        for path in (kept, kept / "in" / "it"):
            assert owners.kept_out(path) == (f"{kept} {whose}", remedy.format(kept))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["workers", "list"], 5, "no database here: {0}/data holds none that this user may use"),
        (
            ["--config", "{}/data", "workers", "list"],
            2,
            "the settings file {0}/data cannot be read: Permission denied: {0} belongs to daemon",
        ),
    ],
    ids=["workers-list", "config"],
)
def test_a_command_that_is_kept_out_says_so(kept: Path, arguments: list[str], code: int, said: str) -> None:
    os.chown(kept, DAEMON, DAEMON)
    for elsewhere in ({"SKYCTL_DATABASE_URL": "postgresql://127.0.0.1:1/x"}, {"SKYCTL_DATA_DIR": "/nowhere"}):
        away = InProcess()("workers", "list", **elsewhere)
        assert away.returncode == 5, "it loads what the other user may not read"
    with acting():
        refused = InProcess()(*(part.format(kept) for part in arguments), SKYCTL_DATA_DIR=f"{kept}/data")
    error, hint = refused.stderr.splitlines()
    assert (refused.returncode, error) == (code, f"error: {said.format(kept)}")
    assert "sudo " in hint
    assert "daemon" in hint


def test_who_would_make_a_data_folder_is_told_whose_the_one_above_is(kept: Path) -> None:
    os.chown(kept, DAEMON, DAEMON)
    with acting(), pytest.raises(ValidationError) as refused:
        data_dir.prepare(kept / "data")
    said = f"SKYCTL_DATA_DIR: '{kept}/data' cannot be used: Permission denied: {kept} belongs to daemon"
    assert refused.value.message == said
    assert refused.value.hint.startswith("sudo skyctl ..., or as that user: sudo -u daemon skyctl ...; or ")
