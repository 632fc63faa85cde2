"""Settings: what wins over what, and what is said of a wrong one."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest

from skyctl import settings
from skyctl.domain.errors import ValidationError
from skyctl.host.keyring import Keyring


def load(config: Path | None = None, **variables: str) -> settings.Settings:
    return settings.load(config, {"HOME": "/home/nobody"} | variables)


def test_defaults() -> None:
    given = load()
    assert given.database_url is None
    assert given.heartbeat_interval == timedelta(seconds=30)
    assert given.heartbeat_timeout == timedelta(seconds=120)
    assert given.api_url == "http://127.0.0.1:8642"
    assert (given.migrations_at_once, given.migrations_into_one, given.migration_attempts) == (4, 2, 3)
    assert given.migration_timeout == timedelta(minutes=5)


def test_environment_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "skyctl.yaml"
    file.write_text("heartbeat_interval: 10\nheartbeat_timeout: 60\napi_url: https://file.example.com/api/\n")
    given = load(file, WORKER_HEARTBEAT_INTERVAL="5")
    assert given.heartbeat_interval == timedelta(seconds=5)
    assert given.heartbeat_timeout == timedelta(seconds=60)
    assert given.api_url == "https://file.example.com"
    assert load(SKYCTL_CONFIG=str(file)).heartbeat_timeout == timedelta(seconds=60)


def test_channels_are_a_list_or_words_in_a_row(tmp_path: Path) -> None:
    file = tmp_path / "skyctl.yaml"
    file.write_text("alert_channels:\n  - json://a\n  - slack://b\n")
    file.chmod(0o600)
    assert load(file).alert_channels == ("json://a", "slack://b")
    assert load(SKYCTL_ALERT_CHANNELS=" json://a\nslack://b json://a").alert_channels == ("json://a", "slack://b")


def test_our_names_win_over_the_panels() -> None:
    given = load(SKYCTL_DATABASE_URL="postgresql://ours", DATABASE_URL="postgresql://panel", JWT_SECRET="panel")
    assert given.database_url == "postgresql://ours"
    assert given.jwt_secret == "panel"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORKER_HEARTBEAT_TIMEOUT": "two minutes"}, ["WORKER_HEARTBEAT_TIMEOUT", "'two minutes'", "0.1 to 86400"]),
        ({"WORKER_HEARTBEAT_INTERVAL": "nan"}, ["WORKER_HEARTBEAT_INTERVAL", "'nan'"]),
        ({"WORKER_HEARTBEAT_INTERVAL": "-1"}, ["WORKER_HEARTBEAT_INTERVAL", "'-1'"]),
        ({"WORKER_HEARTBEAT_INTERVAL": "120"}, ["not longer than"]),
        ({"SKYCTL_MIGRATIONS_AT_ONCE": "0"}, ["SKYCTL_MIGRATIONS_AT_ONCE", "'0'", "a whole number from 1 to 9999"]),
        ({"SKYCTL_MIGRATIONS_INTO_ONE": "many"}, ["SKYCTL_MIGRATIONS_INTO_ONE", "'many'"]),
        ({"SKYCTL_MIGRATION_ATTEMPTS": "1.5"}, ["SKYCTL_MIGRATION_ATTEMPTS", "'1.5'"]),
        ({"SKYCTL_MIGRATION_TIMEOUT": "5m"}, ["SKYCTL_MIGRATION_TIMEOUT", "'5m'", "0.1 to 86400"]),
        ({"SKYCTL_API_URL": "manager:80"}, ["SKYCTL_API_URL", "'manager:80'", "https://"]),
        ({"SKYCTL_API_URL": "http://[bad"}, ["SKYCTL_API_URL", "'http://[bad' is not a URL"]),
        ({"SKYCTL_API_URL": "http://manager:99999"}, ["SKYCTL_API_URL", "is not a URL"]),
        ({"SKYCTL_API_URL": "http://manager:x"}, ["SKYCTL_API_URL", "is not a URL"]),
        ({"DOCKER_SWARM_ADVERTISE_ADDR": "a b"}, ["DOCKER_SWARM_ADVERTISE_ADDR", "'a b' is not host, host:port"]),
        ({"DOCKER_SWARM_ADVERTISE_ADDR": "manager:"}, ["'manager:'"]),
        ({"DOCKER_SWARM_ADVERTISE_ADDR": ":2377"}, ["':2377'"]),
        ({"DOCKER_SWARM_ADVERTISE_ADDR": "manager:99999"}, ["'manager:99999'"]),
        ({"DOCKER_SWARM_ADVERTISE_ADDR": "fd00::x"}, ["'fd00::x'"]),
        ({"DOCKER_SWARM_ADVERTISE_ADDR": "[fd00::1"}, ["'[fd00::1'"]),
        ({"SKYCTL_CONFIG": "/nowhere.yaml"}, ["/nowhere.yaml", "cannot be read"]),
        ({"SKYCTL_DATABASE_URL": "  "}, ["SKYCTL_DATABASE_URL"]),
        ({"WORKER_CPU_LIMIT": "0"}, ["WORKER_CPU_LIMIT", "'0'", "a percentage"]),
        ({"WORKER_MEMORY_LIMIT": "101"}, ["WORKER_MEMORY_LIMIT", "'101'"]),
        ({"WORKER_DISK_LIMIT": "inf"}, ["WORKER_DISK_LIMIT", "'inf'"]),
        ({"SKYCTL_ALERT_CHANNELS": "json://good no-url"}, ["SKYCTL_ALERT_CHANNELS: the value", "slack://"]),
    ],
)
def test_a_wrong_setting_is_named(variables: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ValidationError) as error:
        settings.load(None, {"HOME": "/home/nobody"} | variables)
    for word in words:
        assert word in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "manager.example", "manager:2377", "fd00::1", "[fd00::1]", "[fd00::1]:2377"]
)
def test_an_address_of_the_swarm(address: str) -> None:
    assert load(DOCKER_SWARM_ADVERTISE_ADDR=address).swarm_advertise_addr == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n", "holds no keys"),
        ("heartbeat_interval: [", "not YAML"),
        ("heartbeat_intervall: 3\n", "'heartbeat_intervall'"),
        ("heartbeat_interval: true\n", "heartbeat_interval in"),
        ("jwt_secret: [1, geheim]\n", "jwt_secret in"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "skyctl.yaml"
    file.write_text(text)
    with pytest.raises(ValidationError) as error:
        load(file)
    assert words in error.value.message
    assert "geheim" not in error.value.message + error.value.hint


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    secret = Keyring(tmp_path / "new", str).signing().secret
    assert len(secret) == 64
    assert Keyring(tmp_path / "new", str).signing().secret == secret
    kept = tmp_path / "new" / "jwt-secret"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"changes.lock", "jwt-secret"}


def test_nobody_sees_secrets_in_a_repr() -> None:
    assert "geheim" not in repr(load(JWT_SECRET="geheim", SKYCTL_DATABASE_URL="postgresql://u:geheim@h/d"))


def test_how_long_things_are_kept() -> None:
    given = load(SKYCTL_KEEP_EVENTS_DAYS="0", SKYCTL_KEEP_DEPLOYMENTS="1")
    assert (given.keep_events_days, given.keep_history_days, given.keep_activity_days) == (0, 180, 365)
    assert given.keep_deployments == 1
    for name, wrong in (("SKYCTL_KEEP_HISTORY_DAYS", "-1"), ("SKYCTL_KEEP_DEPLOYMENTS", "0")):
        with pytest.raises(ValidationError, match="a whole number"):
            load(None, **{name: wrong})
