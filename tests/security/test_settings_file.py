"""Files of settings: whoever else may read secrets in them or change them; what is no file of settings at all."""

import json
import os
import re
from pathlib import Path

import pytest

from skyctl import settings
from skyctl.domain.errors import ValidationError
from skyctl.settings import files
from skyctl.settings.table import TABLE
from tests.conftest import Cli

SECRET = "jwt_secret: a-secret-of-more-than-thirty-two-bytes\n"


def load(path: Path) -> settings.Settings:
    return settings.load(path, {"HOME": "/home/nobody"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "skyctl.yaml"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o620, 0o666])
@pytest.mark.parametrize("key", [row.key for row in TABLE if row.secret])
def test_a_file_with_a_secret_that_others_may_read_or_change_is_refused(file: Path, mode: int, key: str) -> None:
    secret = "json://a" if key == "alert_channels" else "a-secret-of-more-than-thirty-two-bytes"
    file.write_text(f"{key}: {secret}\n" + (SECRET if key == "jwt_secret_previous" else ""))
    assert load(file)
    file.chmod(mode)
    with pytest.raises(
        ValidationError, match=rf"{re.escape(str(file))} holds secrets .*{key}.* mode 0{mode:o}"
    ) as error:
        load(file)
    assert f"chmod 600 {file}" in error.value.hint
    assert "a-secret" not in error.value.message + error.value.hint


def test_a_file_without_a_secret_may_be_read_by_all(file: Path) -> None:
    file.write_text("heartbeat_interval: 10\n")
    file.chmod(0o644)
    assert load(file).heartbeat_interval.total_seconds() == 10


def test_the_command_says_how_to_mend_it(cli: Cli, file: Path) -> None:
    file.chmod(0o644)
    done = cli("--config", str(file), "workers", "list")
    assert done.returncode == 2
    assert f"hint: chmod 600 {file}" in done.stderr


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(ValidationError, match=f"the settings file {path} (is no regular file|cannot be read)"):
            load(path)


def test_a_huge_file_is_not_read(file: Path) -> None:
    os.truncate(file, files.LARGEST_FILE + 1)
    with pytest.raises(ValidationError, match="larger than 1 MiB"):
        load(file)


def test_a_file_that_is_no_text_shows_nothing(file: Path) -> None:
    file.write_bytes(b"jwt_secret: Gehe1m\xff")
    with pytest.raises(ValidationError, match="is not UTF-8") as error:
        load(file)
    assert error.value.__cause__ is None


def test_what_may_be_replaced_or_read_by_a_group_is_said(cli: Cli, file: Path) -> None:
    def settings_check() -> dict[str, str]:
        done = cli("--config", str(file), "doctor", "-o", "json", SKYCTL_API_URL="http://127.0.0.1:9")
        [check] = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "settings"]
        return dict(check)

    assert settings_check()["found"] == "can be read"
    file.chmod(0o640)
    file.parent.chmod(0o777)
    found = settings_check()
    assert found["state"] == "warning"
    assert f"{file} has mode 0640" in found["found"]
    assert f"others may write into {file.parent}" in found["found"]
    assert found["remedy"] == f"chmod 600 {file}; chmod go-w {file.parent}"
    file.parent.chmod(0o1777)
    assert "others may write" not in settings_check()["found"]


def test_the_files_of_the_services_are_looked_at(tmp_path: Path) -> None:
    env = tmp_path / "skyctl.env"
    env.write_text("SKYCTL_JWT_SECRET=x\n")
    env.chmod(0o644)
    assert files.concerns([env, tmp_path / "missing.env"]) == [
        (f"{env} has mode 0644: others may read or change it", f"chmod 600 {env}")
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_said(file: Path) -> None:
    os.chown(file, 12345, -1)
    assert files.concerns([file]) == [(f"{file} belongs to user 12345, who may change it", f"chown root {file}")]
