"""The settings: one table feeds the reading, the checks, `skyctl help settings` and its pages.

Weakest first: the default, the YAML file (`--config` or SKYCTL_CONFIG, keys as in the table), the environment. A secret
is never a flag. Errors name the setting, where it came from, and what is accepted.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from skyctl.domain.errors import ValidationError
from skyctl.domain.secrets import MAKE_ONE, weakness
from skyctl.domain.text import without_secrets
from skyctl.host import data_dir as data_folder
from skyctl.settings import files, values
from skyctl.settings.table import DEFAULT_API_URL, NOT_OURS, PANELS_VARIABLE, TABLE, Setting


def http_url(source: str, value: str) -> str:
    """An address that was given outside the table. Raises ValidationError that names its source."""
    try:
        return values.http_url(value)
    except ValueError as error:
        raise ValidationError(
            f"{source}: {without_secrets(value)!r} is not {error}", "such as https://manager.example.com"
        ) from error


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
    is_api_url_set: bool = False
    token_rotation_days: int = 30
    heartbeat_interval: timedelta = timedelta(seconds=30)
    heartbeat_timeout: timedelta = timedelta(seconds=120)
    engine_grace: timedelta = timedelta(seconds=60)
    cpu_limit: float = 90
    cpu_heartbeats: int = 2
    memory_limit: float = 95
    disk_limit: float = 90
    migrations_at_once: int = 4
    migrations_into_one: int = 2
    service_down_grace: timedelta = timedelta(seconds=30)
    deployment_timeout: timedelta = timedelta(seconds=600)
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
    found["is_api_url_set"] = "api_url" in found
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
