"""What others can make beside or in a data folder, and what root takes of it."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from skyctl.domain.errors import Refused, SkyctlError
from skyctl.host import data_dir
from skyctl.host.certificates import Certificates
from skyctl.host.keyring import Keyring

LOCAL, NOW = 61_234, datetime.now(UTC)  # a user whom nobody has
THEIRS = "known-to-a-local-user-0123456789abcdefXYZ"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes folders of other users")


@pytest.fixture
def sticky(tmp_path: Path) -> Path:
    """A folder in which everybody may make something, as /tmp."""
    folder = tmp_path / "sticky"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@as_root
def test_a_folder_beside_ours_is_the_monitors_only_where_nobody_else_could_make_it(sticky: Path) -> None:
    data, theirs = sticky / "data", sticky / "data-monitor"
    theirs.mkdir(mode=0o755)
    (theirs / "jwt-secret").write_text(f"{THEIRS}\n")
    for path in (theirs, theirs / "jwt-secret"):
        os.chown(path, LOCAL, LOCAL)
    data_dir.prepare(data)
    assert THEIRS not in [key.secret for key in Keyring(data, str).administrators(NOW)]
    Certificates(data).make(["localhost"], NOW)
    assert (data / "tls/ca.key").exists()
    assert [path.name for path in theirs.iterdir()] == ["jwt-secret"]


@as_root
def test_root_keeps_nothing_in_a_folder_that_somebody_put_where_everybody_may(sticky: Path) -> None:
    data = sticky / "data"
    data.mkdir(mode=0o755)
    os.chown(data, LOCAL, LOCAL)
    with pytest.raises(Refused, match="no safe folder"):
        data_dir.prepare(data)
    with pytest.raises(SkyctlError, match="no safe folder"):
        Keyring(data, str).check()
    assert not list(data.iterdir())


@pytest.mark.parametrize("name", [".", "/", "x" * 250, "file/below"])
def test_a_folder_that_can_have_none_beside_it_is_one_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    Keyring(Path(name), str)
    assert Certificates(Path(name)).folder == Path(name) / "tls"
