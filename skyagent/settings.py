"""The configuration: a JSON file (the panel agent's own format, extended), the environment over it, one checked
value."""

from __future__ import annotations

import base64
import json
import logging
import re
import stat
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from skyagent.errors import ConfigError
from skyagent.proxies import Proxy, proxy_for

log = logging.getLogger(__name__)

VARIABLES = {
    "apiUrl": "SKYAGENT_API_URL",
    "authToken": "SKYAGENT_TOKEN",
    "workerId": "SKYAGENT_WORKER_ID",
    "heartbeatInterval": "SKYAGENT_INTERVAL",
    "insecure": "SKYAGENT_INSECURE",
    "caFile": "SKYAGENT_CA_FILE",
    "dockerSocket": "SKYAGENT_DOCKER_SOCKET",
}
SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 3600.0
# The panel's agent writes milliseconds; no one wants a heartbeat less often than every quarter of an hour.
LARGEST_IN_SECONDS = 1000
URL = re.compile(r"(https?://(?:\[[0-9a-f:.]+\]|[\w.-]+)(?::\d{1,5})?(?:/+[\w.~-]+)*?)(?:/+api)*/*", re.ASCII | re.I)
FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Settings:
    """A configuration that has been checked; `api_url` ends in neither `/` nor `/api`."""

    api_url: str
    auth_token: str = field(repr=False)
    worker_id: str
    interval_seconds: float = 30.0
    ca_file: str | None = None
    docker_socket: str = "/var/run/docker.sock"
    state_folder: Path | None = None
    proxy: Proxy | None = field(default=None, repr=False)

    @property
    def encrypted(self) -> bool:
        """Tell whether the manager is spoken to over TLS."""
        return urlsplit(self.api_url).scheme == "https"

    @property
    def manager(self) -> tuple[str, int]:
        """The manager's host name or address, and its port."""
        url = urlsplit(self.api_url)
        return url.hostname or "", url.port or (443 if self.encrypted else 80)

    @property
    def first_hop(self) -> tuple[str, int]:
        """The host and port to which this host itself connects: the proxy's, else the manager's."""
        return self.proxy.address if self.proxy else self.manager

    @property
    def private(self) -> bool:
        """Tell whether nobody between here and the manager can speak in its place: TLS, or this very machine."""
        return self.encrypted or self.loopback

    @property
    def loopback(self) -> bool:
        """Tell whether the manager is on this very machine: by an address, or `localhost`; not by a name that others
        resolve."""
        host = self.manager[0]
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


class Setting(NamedTuple):
    """A value as it was given, and the words that name the place for the one who has to change it."""

    value: object
    name: str


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the file, lay the environment over it, check the whole.

    Raises ConfigError, whose message never holds the token.
    """
    configured = _from_file(path) if path else {}
    configured.update(_from_environment(environ))
    token = _token(_required(configured, "authToken"))
    settings = Settings(
        api_url=_url(_required(configured, "apiUrl")),
        auth_token=token,
        worker_id=_worker_id(configured.get("workerId") or _claimed_worker_id(token)),
        interval_seconds=_seconds(configured["heartbeatInterval"])
        if "heartbeatInterval" in configured
        else Settings.interval_seconds,
        ca_file=_path(configured["caFile"]) if "caFile" in configured else None,
        docker_socket=_path(configured["dockerSocket"]) if "dockerSocket" in configured else Settings.docker_socket,
        state_folder=_state_folder(path, environ),
    )
    insecure = "insecure" in configured and _flag(configured["insecure"])
    if not (settings.private or insecure):
        raise ConfigError(
            f"apiUrl {settings.api_url} would send the token in the clear",
            "use https://, or set insecure (SKYAGENT_INSECURE) to true where the network itself is trusted",
        )
    if settings.loopback:
        return settings
    host, _ = settings.manager
    return replace(settings, proxy=proxy_for(host, encrypted=settings.encrypted, environ=environ))


def _state_folder(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The folder for what the agent must remember: the one that the service manager names, else beside the file."""
    named = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(named) if named else path.absolute().parent if path else None


def _from_file(path: Path) -> dict[str, Setting]:
    """The fields of the JSON file that are known and not null."""
    try:
        mode = path.stat().st_mode
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "name a readable file with --config") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is not JSON", 'write one object, such as {"apiUrl": "https://…"}') from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} holds no JSON object", 'write one object, such as {"apiUrl": "https://…"}')
    if mode & stat.S_IROTH:
        log.warning("action=config_exposed path=%s reason='readable by every user: chmod 600 it'", path)
    for unknown in sorted(document.keys() - VARIABLES):
        log.warning("action=config_unknown field=%r path=%s", unknown, path)
    return {key: Setting(document[key], f"{key} in {path}") for key in VARIABLES if document.get(key) is not None}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Setting]:
    """The fields that a variable sets; an empty one sets nothing."""
    return {key: Setting(environ[name], name) for key, name in VARIABLES.items() if environ.get(name)}


def _required(configured: dict[str, Setting], key: str) -> Setting:
    if key in configured:
        return configured[key]
    raise ConfigError(f"{key} is missing", f"put it into the file named by --config, or set {VARIABLES[key]}")


def _url(setting: Setting) -> str:
    """An http or https URL without user, query or fragment; `/api` and `/` at its end are folded away."""
    match = URL.fullmatch(setting.value) if isinstance(setting.value, str) else None
    try:
        if match and urlsplit(match[1]).port != 0:
            return match[1]
    except ValueError:  # a port beyond 65535, or no IPv6 address within the brackets
        pass
    raise _wrong(setting, "write it as https://HOST[:PORT], without user, query or spaces")


def _token(setting: Setting) -> str:
    """Printable ASCII without spaces: anything else would be refused, and shown, by the HTTP library."""
    if isinstance(setting.value, str) and re.fullmatch(r"[!-~]+", setting.value):
        return setting.value
    raise ConfigError(f"{setting.name} is no token (its value is not shown)", "copy the whole token, on one line")


def _claimed_worker_id(token: str) -> Setting:
    """The worker's id as the token states it; it is the manager that verifies the token."""
    try:
        payload = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        return Setting(payload["workerId"], "workerId in the token")
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ConfigError(
            "authToken names no worker", f"copy it again, or set workerId ({VARIABLES['workerId']})"
        ) from None


def _worker_id(setting: Setting) -> str:
    try:
        return str(uuid.UUID(str(setting.value)))
    except ValueError:
        raise _wrong(setting, "write the worker's id, a UUID, or leave it out") from None


def _seconds(setting: Setting) -> float:
    """Seconds from 0.1 to 3600; what is over 1000 is milliseconds."""
    try:
        number = float(str(setting.value))
    except ValueError:
        number = float("nan")
    seconds = number / 1000 if number > LARGEST_IN_SECONDS else number
    if SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        return seconds
    raise _wrong(setting, "write seconds, 0.1 to 1000, or milliseconds up to 3600000")


def _flag(setting: Setting) -> bool:
    flag = FLAGS.get(str(setting.value).lower())
    if flag is None:
        raise _wrong(setting, "write true or false")
    return flag


def _path(setting: Setting) -> str:
    if isinstance(setting.value, str) and setting.value.startswith("/") and "\0" not in setting.value:
        return setting.value
    raise _wrong(setting, "write an absolute path, such as /var/run/docker.sock")


def _wrong(setting: Setting, remedy: str) -> ConfigError:
    """The error for a value, shown shortened and without the password that a URL may hold."""
    return ConfigError(f"{setting.name} is {re.sub('//.*@', '//***@', repr(setting.value))[:100]}", remedy)
