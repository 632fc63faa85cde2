"""The settings: one table feeds the reading, the checks, `skyctl --help` and the README.

Weakest first: the default, the YAML file (`--config` or SKYCTL_CONFIG, keys as in the table), the environment. A secret
is never a flag. Errors name the setting, where it came from, and what is accepted.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from skyctl.domain.errors import ValidationError
from skyctl.domain.secrets import MAKE_ONE, weakness
from skyctl.domain.text import without_secrets
from skyctl.host import data_dir as data_folder
from skyctl.settings import files, values


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: its key in the file, its names in the environment (the first wins), how it is read, what it
    means."""

    key: str
    variables: tuple[str, ...]
    read: Callable[[object], Any]
    default: str
    meaning: str
    secret: bool = False


def http_url(source: str, value: str) -> str:
    """An address that was given outside the table. Raises ValidationError that names its source."""
    try:
        return values.http_url(value)
    except ValueError as error:
        raise ValidationError(
            f"{source}: {without_secrets(value)!r} is not {error}", "such as https://manager.example.com"
        ) from error


PANELS_VARIABLE = "JWT_SECRET"
NOT_OURS = (PANELS_VARIABLE, "SKYCTL_JWT_SECRET_PREVIOUS", "jwt_secret_previous")
DEFAULT_PORT = 8642
DEFAULT_API_URL = f"http://127.0.0.1:{DEFAULT_PORT}"

TABLE = (
    Setting(
        "database_url",
        ("SKYCTL_DATABASE_URL", "DATABASE_URL"),
        values.text,
        "",
        "PostgreSQL to use; without it, the embedded one in the data folder",
        secret=True,
    ),
    Setting(
        "jwt_secret",
        ("SKYCTL_JWT_SECRET", PANELS_VARIABLE),
        values.text,
        "",
        "signs and checks tokens; without it, one is made and kept in the data folder, mode 0600",
        secret=True,
    ),
    Setting(
        "jwt_secret_previous",
        ("SKYCTL_JWT_SECRET_PREVIOUS",),
        values.text,
        "",
        "what jwt_secret was before: tokens that it signed are still accepted",
        secret=True,
    ),
    Setting(
        "metrics_token",
        ("SKYCTL_METRICS_TOKEN",),
        values.secret,
        "",
        "lets Prometheus read `/metrics` of `skyctl serve`, and nothing else; administrators may as well",
        secret=True,
    ),
    Setting(
        "api_url",
        ("SKYCTL_API_URL",),
        values.http_url,
        f"where `skyctl up` listens, else {DEFAULT_API_URL}",
        "where hosts reach the API; install scripts carry it",
    ),
    Setting(
        "token_rotation_days",
        ("SKYCTL_TOKEN_ROTATION_DAYS",),
        values.days,
        "30",
        "days after which a worker's token is replaced by itself; 0: never",
    ),
    Setting(
        "data_dir",
        ("SKYCTL_DATA_DIR",),
        values.folder,
        "/var/lib/skyctl (root), ~/.local/share/skyctl",
        "the folder of the embedded database and of the kept secret",
    ),
    Setting(
        "heartbeat_interval",
        ("WORKER_HEARTBEAT_INTERVAL",),
        values.seconds,
        "30",
        "seconds between two heartbeats of a worker",
    ),
    Setting(
        "heartbeat_timeout",
        ("WORKER_HEARTBEAT_TIMEOUT",),
        values.seconds,
        "120",
        "seconds of silence after which a worker is offline",
    ),
    Setting(
        "engine_grace", ("WORKER_ENGINE_GRACE",), values.seconds, "60", "seconds that a worker's engine may be away"
    ),
    Setting(
        "cpu_limit", ("WORKER_CPU_LIMIT",), values.percent, "90", "percent of CPU above which a worker is unhealthy"
    ),
    Setting(
        "memory_limit",
        ("WORKER_MEMORY_LIMIT",),
        values.percent,
        "95",
        "percent of memory above which a worker is unhealthy",
    ),
    Setting(
        "disk_limit", ("WORKER_DISK_LIMIT",), values.percent, "90", "percent of disk above which a worker is unhealthy"
    ),
    Setting(
        "migrations_at_once",
        ("SKYCTL_MIGRATIONS_AT_ONCE",),
        values.count,
        "4",
        "containers that are moved at the same time",
    ),
    Setting(
        "migrations_into_one",
        ("SKYCTL_MIGRATIONS_INTO_ONE",),
        values.count,
        "2",
        "of these, containers that are moved to the same worker",
    ),
    Setting(
        "migration_timeout",
        ("SKYCTL_MIGRATION_TIMEOUT",),
        values.seconds,
        "300",
        "seconds after which a container that does not run on its new worker is moved back",
    ),
    Setting(
        "migration_attempts",
        ("SKYCTL_MIGRATION_ATTEMPTS",),
        values.count,
        "3",
        "attempts after which a migration is given up, until somebody retries it",
    ),
    Setting(
        "alert_channels",
        ("SKYCTL_ALERT_CHANNELS",),
        values.urls,
        "",
        "where alerts go besides the database: URLs as Apprise has them (slack://, mailtos://, jsons://, ...)",
        secret=True,
    ),
    Setting(
        "swarm_advertise_addr",
        ("DOCKER_SWARM_ADVERTISE_ADDR",),
        values.swarm_address,
        "",
        "address by which workers join the swarm; without it, the one that the swarm reports",
    ),
    Setting(
        "docker_host",
        ("DOCKER_HOST",),
        values.text,
        "",
        "the Docker engine of a swarm manager; without it, the local socket",
    ),
    Setting(
        "keep_events_days",
        ("SKYCTL_KEEP_EVENTS_DAYS",),
        values.days,
        "90",
        "days for which the log of events and used links are kept; 0: for ever",
    ),
    Setting(
        "keep_history_days",
        ("SKYCTL_KEEP_HISTORY_DAYS",),
        values.days,
        "180",
        "days for which alerts, migrations and deployments are kept once they are over; 0: for ever",
    ),
    Setting(
        "keep_activity_days",
        ("SKYCTL_KEEP_ACTIVITY_DAYS",),
        values.days,
        "365",
        "days for which what skyctl wrote into the activity log is kept; 0: for ever",
    ),
    Setting(
        "keep_deployments",
        ("SKYCTL_KEEP_DEPLOYMENTS",),
        values.count,
        "10",
        "deployments of each service that are kept, however old",
    ),
    Setting(
        "encrypt_networks",
        ("SKYCTL_ENCRYPT_NETWORKS",),
        values.yes_or_no,
        "true",
        "whether the networks of organizations are encrypted between workers; their kernels need IPsec for it",
    ),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the table, read and checked. None where there is no value and no default. `weak_secrets`: the
    variables of secrets that can be guessed and are used all the same, and why."""

    data_dir: Path
    database_url: str | None = None
    jwt_secret: str | None = None
    jwt_secret_previous: str | None = None
    metrics_token: str | None = None
    api_url: str = DEFAULT_API_URL
    token_rotation_days: int = 30
    heartbeat_interval: timedelta = timedelta(seconds=30)
    heartbeat_timeout: timedelta = timedelta(seconds=120)
    engine_grace: timedelta = timedelta(seconds=60)
    cpu_limit: float = 90
    memory_limit: float = 95
    disk_limit: float = 90
    migrations_at_once: int = 4
    migrations_into_one: int = 2
    migration_timeout: timedelta = timedelta(seconds=300)
    migration_attempts: int = 3
    alert_channels: tuple[str, ...] = ()
    swarm_advertise_addr: str | None = None
    docker_host: str | None = None
    encrypt_networks: bool = True
    keep_events_days: int = 90
    keep_history_days: int = 180
    keep_activity_days: int = 365
    keep_deployments: int = 10
    weak_secrets: Mapping[str, str] = field(default_factory=dict)
    config: Path | None = None  # the file that was read

    def __repr__(self) -> str:
        return f"Settings(data_dir={str(self.data_dir)!r})"


def load(config: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings. Raises ValidationError that names the setting, its source and what is accepted."""
    variables = os.environ if environment is None else environment
    path = config or (Path(variables["SKYCTL_CONFIG"]) if variables.get("SKYCTL_CONFIG") else None)
    file_values = _read_file(path) if path else {}
    found: dict[str, Any] = {"data_dir": _default_data_dir(variables), "weak_secrets": {}}
    for setting in TABLE:
        source, raw = _pick(setting, file_values, path, variables)
        if raw is not None:
            found[setting.key] = _checked(setting, source, raw)
            if setting.key.startswith("jwt_secret") and (weak := weakness(found[setting.key])):
                found["weak_secrets"][source] = _borne(source, weak)
    found.setdefault("api_url", _address_of_up(found["data_dir"]) or DEFAULT_API_URL)
    if path:
        files.refuse_open_secrets(path, [row.key for row in TABLE if row.secret and file_values.get(row.key)])
    settings = Settings(**found, config=path)
    if settings.jwt_secret_previous and not settings.jwt_secret:
        raise ValidationError(
            "jwt_secret_previous (SKYCTL_JWT_SECRET_PREVIOUS) is set, and jwt_secret is not",
            "set SKYCTL_JWT_SECRET to the secret that signs",
        )
    if settings.heartbeat_timeout <= settings.heartbeat_interval:
        raise ValidationError(
            f"heartbeat_timeout ({settings.heartbeat_timeout.total_seconds():g} s) is not longer than "
            f"heartbeat_interval ({settings.heartbeat_interval.total_seconds():g} s)",
            "give WORKER_HEARTBEAT_TIMEOUT several intervals, or every worker is offline between two heartbeats",
        )
    return settings


def _address_of_up(folder: Path) -> str | None:
    try:
        return values.http_url(data_folder.address_of_up(folder) or "")
    except ValueError:
        return None


def _pick(
    setting: Setting, file_values: Mapping[str, object], path: Path | None, variables: Mapping[str, str]
) -> tuple[str, object | None]:
    for variable in setting.variables:
        if variables.get(variable):
            return variable, variables[variable]
    return f"{setting.key} in {path}", file_values.get(setting.key)


def _checked(setting: Setting, source: str, raw: object) -> Any:
    try:
        return setting.read(raw)
    except ValueError as error:
        shown = "the value" if setting.secret else repr(without_secrets(raw) if isinstance(raw, str) else raw)
        raise ValidationError(f"{source}: {shown} is not {error}", f"{setting.key}: {setting.meaning}") from error


def _borne(source: str, weak: str) -> str:
    """Return why a signing secret is weak where it is not ours to choose: the panel's, or the one before. Raises
    ValidationError where it is ours."""
    if source.startswith(NOT_OURS):
        return weak
    raise ValidationError(
        f"{source}: the secret can be guessed from a token: {weak}",
        f"{MAKE_ONE}; one of the panel, which cannot be changed at once, is to be set as {PANELS_VARIABLE}",
    )


def _read_file(path: Path) -> dict[str, object]:
    import yaml  # here, since most commands read no file

    text = files.read(path)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # whose words show lines of the file
        raise ValidationError(f"the settings file {path} is not YAML", "write it as `key: value` lines") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValidationError(f"the settings file {path} holds no keys", "write it as `key: value` lines")
    known = [setting.key for setting in TABLE]
    for key in content:
        if key not in known:
            raise ValidationError(
                f"the settings file {path}: unknown key {without_secrets(str(key))!r}",
                f"known keys: {', '.join(known)}",
            )
    return content


def _default_data_dir(variables: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/skyctl")
    base = variables.get("XDG_DATA_HOME") or str(Path(variables.get("HOME") or "~").expanduser() / ".local/share")
    return Path(base) / "skyctl"
