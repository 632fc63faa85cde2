"""No password of a URL is shown, whatever characters it is of: not in errors, findings, tracebacks and logs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from skyagent import settings as agent_settings
from skyagent.errors import ConfigError
from skyctl.domain.errors import DatabaseUnavailable, EngineUnavailable
from skyctl.domain.text import without_secrets
from skyctl.host import http_probe
from skyctl.store.db import Database
from skyctl.swarm import SwarmEngine
from tests.conftest import Cli, clean_environment

pytestmark = pytest.mark.in_process

ODD = ("@", ":", "/", "#", "?", "%", "&", "=", "@/", "?a=b@", "/@:", " ", "'", "[", "@@")
PASSWORDS = [f"Gehe1m{odd}Geh3im" for odd in ODD]
DATABASES = [
    *(f"postgresql://u:{password}@127.0.0.1:1/x" for password in PASSWORDS),
    *(f"postgresql://u@127.0.0.1:1/x?{name}=Gehe1mGeh3im" for name in ("password", "sslpassword", "PassWord")),
    "host=127.0.0.1 port=1 user=u password=Gehe1mGeh3im",
    "host=127.0.0.1 password='Gehe1m Geh3im'",
    "postgresql://u:Gehe1mGeh3im/x",
    "postgresql://u:Gehe1mGeh3im",
    "mysql://u:Gehe1m@Geh3im@127.0.0.1/x",
]


def shows_none(text: str) -> bool:
    return "Gehe1m" not in text and "Geh3im" not in text


@pytest.mark.parametrize("url", DATABASES)
def test_a_database_that_is_away_is_named_without_its_password(url: str) -> None:
    with pytest.raises(DatabaseUnavailable) as error, Database(url).transaction():
        pass
    assert shows_none(f"{error.value.message} {error.value.hint}")


@pytest.mark.parametrize("url", [DATABASES[0], DATABASES[9], DATABASES[-3], DATABASES[-5]])
def test_no_command_shows_it_nor_does_a_traceback(cli: Cli, url: str) -> None:
    for command in (["--debug", "workers", "list"], ["doctor"], ["--debug", "db", "check"]):
        done = cli(*command, SKYCTL_DATABASE_URL=url)
        assert done.returncode in (1, 5)
        assert done.stdout + done.stderr
        assert shows_none(done.stdout + done.stderr)


def test_an_unescaped_at_sign_is_named() -> None:
    with pytest.raises(DatabaseUnavailable, match="more than one @") as error:
        Database("postgresql://u:p@ss@127.0.0.1/x")
    assert "%40" in error.value.hint
    assert Database("postgresql://u@server:p%40ss@127.0.0.1/x").address == "postgresql://u%40server:***@127.0.0.1/x"


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("scheme", ["tcp", "http", "https", "ssh", "unix", "odd"])
def test_an_engine_that_is_away_is_named_without_its_password(scheme: str, password: str) -> None:
    engine = SwarmEngine(f"{scheme}://u:{password}@127.0.0.1:1", None)
    with pytest.raises(EngineUnavailable) as error:
        engine.state()
    assert shows_none(f"{error.value.message} {error.value.hint}")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SKYCTL_API_URL", "https://admin:Gehe1m/@Geh3im@manager.example.com"),
        ("SKYCTL_ALERT_CHANNELS", "json://u:Gehe1m@Geh3im no-url"),
        ("DOCKER_SWARM_ADVERTISE_ADDR", "tcp://u:Gehe1m@Geh3im@host:2377"),
        ("HTTPS_PROXY", "odd://u:Gehe1m/@Geh3im@proxy:1"),
    ],
)
def test_a_wrong_setting_shows_none(cli: Cli, variable: str, value: str) -> None:
    done = cli("--debug", "doctor", **{"SKYCTL_API_URL": "https://manager.invalid"} | {variable: value})
    assert done.returncode == (1 if variable == "HTTPS_PROXY" else 2)
    assert shows_none(done.stdout + done.stderr)


@pytest.mark.parametrize(
    "text",
    ["database_url: [Gehe1m\n}Geh3im", "postgresql://u:Gehe1m@Geh3im@h/x: 1\n", "password=Gehe1mGeh3im: 1\n"],
)
def test_a_wrong_settings_file_shows_none(cli: Cli, tmp_path: Path, text: str) -> None:
    file = tmp_path / "skyctl.yaml"
    file.write_text(text)
    file.chmod(0o600)
    done = cli("--debug", "--config", str(file), "workers", "list")
    assert done.returncode == 2
    assert str(file) in done.stderr
    assert shows_none(done.stderr)


def test_a_channel_that_fails_is_named_without_its_url(cli: Cli) -> None:
    for url in ("json://u:Gehe1m@Geh3im@127.0.0.1:1/x", "slack://Gehe1mGeh3im", "odd://Gehe1m/Geh3im"):
        done = cli("--debug", "alerts", "test", SKYCTL_ALERT_CHANNELS=url)
        assert done.returncode == 5
        assert shows_none(done.stdout + done.stderr)


def test_a_line_of_the_log_shows_none() -> None:
    program = (
        "import logging; from skyctl.host import logs; logs.to_stderr()\n"
        "try: raise ValueError('cannot reach https://u:Gehe1m/@Geh3im@host/x?token=Gehe1m')\n"
        "except ValueError: logging.exception('action=x url=%s', 'postgresql://u:Gehe1m@Geh3im@h')"
    )
    done = subprocess.run([sys.executable, "-c", program], env=clean_environment(), capture_output=True, text=True)
    assert "ValueError: cannot reach https://u:***@host/x?token=***" in done.stderr
    assert "action=x url=postgresql://u:***@h" in done.stderr
    assert shows_none(done.stderr)


def test_a_proxy_that_cannot_be_used_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "odd://u:Gehe1m/@Geh3im@proxy:1")
    answer = http_probe.probe("http://manager.invalid", 5, by_proxy=True)
    assert answer.trouble
    assert shows_none(answer.trouble)


@pytest.mark.parametrize("password", PASSWORDS)
def test_an_agents_address_shows_none(tmp_path: Path, password: str) -> None:
    file = tmp_path / "agent.json"
    address = f"https://u:{password}@manager.example"
    file.write_text(json.dumps({"apiUrl": address, "authToken": "t", "workerId": "w"}))
    with pytest.raises(ConfigError) as error:
        agent_settings.load(file, {})
    assert shows_none(str(error.value))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://postgres@/x?host=%2Ftmp", "postgresql://postgres@/x?host=%2Ftmp"),
        ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
        ("tcp://10.0.0.1:2375", "tcp://10.0.0.1:2375"),
        ("tcp://[fd00::1]:2375", "tcp://[fd00::1]:2375"),
        ("tcp://u:p@[fd00::1]:2375", "tcp://u:***@[fd00::1]:2375"),
        ("postgresql://u:a b@h:1/x", "postgresql://u:***@h:1/x"),
        ("no answer from https://u:p@h/x, nor h2", "no answer from https://u:***@h/x, nor h2"),
        ("host=h password = 'a b' user=u", "host=h password = *** user=u"),
        ("action=token_rotated name='w'", "action=token_rotated name='w'"),
    ],
)
def test_the_rest_stays_as_it_is(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize("odd", list("\"'<>"))
def test_within_a_text_an_odd_character_does_not_end_a_password(odd: str) -> None:
    shown = without_secrets(f"cannot reach 'postgresql://skyctl:first{odd}second@db.example.com/skyctl' now")
    assert shown == "cannot reach 'postgresql://skyctl:***@db.example.com/skyctl' now"
