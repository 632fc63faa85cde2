"""What others can make beside or in a data folder, and what root takes of it."""

import hashlib
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from skyctl import settings
from skyctl.domain.errors import Refused, SkyctlError
from skyctl.host import data_dir, interpreter
from skyctl.host.certificates import Certificates
from skyctl.host.keyring import Keyring
from skyctl.operations.admin import certificates
from skyctl.operations.shared.context import Context
from skyctl.settings.table import DEFAULT_API_URL
from skyctl.store import certificate_requests

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


@as_root
def test_what_the_monitors_empty_folder_lacks_is_never_made_over_what_was_there(tmp_path: Path) -> None:
    """As when a backup of before is put back where the new version is installed."""
    data, monitors = tmp_path / "skyctl", tmp_path / "skyctl-monitor"
    data.mkdir(mode=0o700)
    Keyring(data, str).check()
    Certificates(data).make(["localhost"], NOW)
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    monitors.mkdir(mode=0o700)
    with pytest.raises(SkyctlError, match="jwt-secret is missing") as refused:
        Keyring(data, str).check()
    assert "skyctl systemd install" in str(refused.value.hint)
    with pytest.raises(Refused, match=r"ca\.pem is missing") as refused:
        Certificates(data).make(["localhost", "new.example.com"], NOW, renew=True)
    assert "skyctl systemd install" in str(refused.value.hint)
    assert {path: path.read_bytes() for path in before} == before
    assert not [path for path in monitors.rglob("*") if path.is_file()]


def test_an_answer_to_a_former_request_brings_no_old_certificate_back(tmp_path: Path) -> None:
    data, monitors = tmp_path / "skyctl", tmp_path / "skyctl-monitor"
    for folder in (data, monitors):
        folder.mkdir(mode=0o700)
    root = Certificates(data)
    root.make(["localhost"], NOW - timedelta(days=340))
    answer, _ = Certificates(monitors).sign(root.request(), NOW)
    root.make(["new.example.com"], NOW, renew=True)
    shown = root.server.read_text()
    root.adopt(answer)
    assert root.server.read_text() == shown
    assert not list(data.rglob("next.*"))


def test_an_answer_that_is_itself_due_is_asked_for_anew(context: Context, tmp_path: Path) -> None:
    data = tmp_path / "skyctl"
    data.mkdir(mode=0o700)
    ours, long_ago = Certificates(data), NOW - timedelta(days=370)
    ours.make(["localhost"], long_ago)
    request, shown = ours.request(), ours.server.read_text()
    late, _ = ours.sign(request, long_ago)
    ours.authority_key.unlink()
    with context.db.transaction() as tx:
        request_id = hashlib.sha256(request.encode()).hexdigest()
        certificate_requests.ask(tx, request_id, request)
        certificate_requests.settle(tx, request_id, certificate_requests.Answer(late, None))
    assert certificates.renew_if_due(context, ours) is certificates.Renewal.ASKED
    assert ours.server.read_text() == shown
    assert ours.request() != request


def test_a_key_with_a_pass_phrase_asks_nobody_for_it(tmp_path: Path) -> None:
    """Whom OpenSSL would ask at the terminal, here one that says what was asked."""
    data = tmp_path / "skyctl"
    data.mkdir(mode=0o700)
    ours = Certificates(data)
    ours.make(["localhost"], NOW)
    key = load_pem_private_key(ours.server_key.read_bytes(), password=None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    ours.server_key.write_bytes(sealed)
    look = f"from pathlib import Path; from skyctl.host.certificates import Certificates; p = Path({str(data)!r}); "
    script = ["script", "-qec", f'{sys.executable} -c "{look}print(Certificates(p).fit)"', "/dev/null"]
    shown = subprocess.run(script, input="none\n", capture_output=True, text=True).stdout
    assert "pass phrase" not in shown
    assert shown.split()[-1] == "False"


@as_root
def test_what_is_mounted_in_a_folder_is_not_handed_over(tmp_path: Path) -> None:
    home, one, data = tmp_path / "home", tmp_path / "one", tmp_path / "skyctl"
    for folder in (home, data, data / "mounted"):
        folder.mkdir()
    for file in (home / "of-root", one, data / "file", data / "own"):
        file.touch()
    os.chown(data, LOCAL, LOCAL)
    hand_over = "import sys; from pathlib import Path; from skyctl.host import folders; "
    hand_over += f"folders.hand_over(Path(sys.argv[1]), {LOCAL}, {LOCAL}, keep='postgres')"
    mounts = 'mount --bind "$1" "$2/mounted" && mount --bind "$3" "$2/file" && exec "$4" -c "$5" "$2"'
    arguments = [str(value) for value in (home, data, one, sys.executable, hand_over)]
    subprocess.run(["unshare", "--mount", "sh", "-c", mounts, "sh", *arguments], check=True)
    assert [path.stat().st_uid for path in (home, home / "of-root", one)] == [0, 0, 0]
    assert (data / "own").stat().st_uid == LOCAL


@as_root
def test_nobody_elses_folder_says_where_hosts_are_sent(tmp_path: Path) -> None:
    data = tmp_path / "skyctl"
    data.mkdir()
    with data_dir.only_up(data, "http://127.0.0.1:8080"):
        assert settings.load(None, {"SKYCTL_DATA_DIR": str(data)}).api_url == "http://127.0.0.1:8080"
        for path in (data, data / "up.lock"):
            os.chown(path, LOCAL, LOCAL)
        assert settings.load(None, {"SKYCTL_DATA_DIR": str(data)}).api_url == DEFAULT_API_URL
    for path in (data, data / "up.lock"):
        os.chown(path, 0, 0)
    with data_dir.only_up(data, "https://example.com/$(id) ;x"):
        assert settings.load(None, {"SKYCTL_DATA_DIR": str(data)}).api_url == DEFAULT_API_URL


def test_a_working_folder_that_was_removed_is_none_of_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert interpreter.command("skyctl")[-1] == "skyctl"
