"""`serve` and `monitor` as services of this host's systemd: their units, the settings that these read, the user as whom
they run.

The database URL and the secrets are in the settings file alone, which only root reads. What an administrator has
written there stays, and so do the data at an uninstall.
"""

import grp
import os
import pwd
import re
import shlex
import stat
import string
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from skyctl import settings
from skyctl.domain.errors import Refused, SkyctlError, ValidationError
from skyctl.host import folders
from skyctl.host.data_dir import write_private
from skyctl.host.system_users import account, system_account
from skyctl.settings import TABLE

UNITS = ("skyctl-serve.service", "skyctl-monitor.service")
FOLDER = Path("/etc/systemd/system")
SETTINGS = Path("/etc/skyctl/skyctl.env")
DATA = Path("/var/lib/skyctl")
OF_DATABASE = "postgres"  # how the names begin of what the embedded database keeps in the data folder
COMMENT = "skyctl services"  # tells a user that was made here from one that was there
DATABASE = ("SKYCTL_DATABASE_URL", "DATABASE_URL")
OPTIONS = (
    ("SKYCTL_SERVE_ARGS", "options of `skyctl serve`, such as --host 0.0.0.0 to listen on every address"),
    ("SKYCTL_MONITOR_ARGS", "options of `skyctl monitor`, such as --metrics-port 9464"),
)
# What the units hide from their processes, beside what its owner alone may read.
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - named, not used


class Change(NamedTuple):
    """A step that is due: its outcome once it is made, as printed, and the function that makes it."""

    outcome: str
    make: Callable[[], object]


class _Template(string.Template):
    delimiter = "@@"


@dataclass(frozen=True, slots=True)
class Services:
    """The services as they shall be: run by this user, with these settings where none are written yet."""

    user: str
    environment: Mapping[str, str]

    def check(self, *, changes: bool) -> None:
        """Raise Refused or ValidationError where this host or what was given does not allow for them."""
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", self.user) or self.user == "root":
            raise ValidationError(f"--user: {self.user!r} is not a system user's name", "such as skyctl; never root")
        if self.environment.get("SKYCTL_CONFIG"):
            raise ValidationError(
                "SKYCTL_CONFIG, --config: the services read no such file", f"set what it holds in {SETTINGS} instead"
            )
        if not Path("/run/systemd/system").is_dir():
            raise Refused(
                "this host was not booted with systemd", "run `skyctl serve` and `skyctl monitor` by its own means"
            )
        if changes and os.geteuid() != 0:
            raise Refused("only root installs services", "run it as root, or with --dry-run to see what it would do")

    def install(self) -> Iterator[Change]:
        """Give the changes that are due until they run. Each has to be made before the next is asked for, or none of
        them.

        Raises ValidationError where a setting is missing or wrong, SkyctlError where a service does not start.
        """
        _check_reachable(Path(sys.executable))
        if not account(self.user):
            yield Change(f"made the system user {self.user}", partial(system_account, self.user, DATA, COMMENT))
        if not SETTINGS.exists():
            text = settings_text(self.environment)
            yield Change(f"wrote {SETTINGS}", partial(_write_settings, text))
        elif stat.S_IMODE(SETTINGS.stat().st_mode) & 0o077:
            yield Change(f"closed {SETTINGS} to others", partial(SETTINGS.chmod, 0o600))
        self._check_settings()
        if _strangers(self.user):
            yield Change(f"handed {DATA} over to {self.user}", partial(_hand_over, self.user))
        stale = [name for name in UNITS if _read(FOLDER / name) != unit_text(name, self.user)]
        for name in stale:
            yield Change(f"wrote {FOLDER / name}", partial(_write_unit, name, self.user))
        for name in UNITS:
            if name in stale or not _holds("is-active", name) or not _holds("is-enabled", name):
                yield Change(f"started {name}", partial(_start, name))

    def uninstall(self) -> Iterator[Change]:
        """Give the changes that are due until only the settings file and the data are left, which are root's then."""
        units = [FOLDER / name for name in UNITS if (FOLDER / name).exists()]
        ran = re.search(r"^User=(.+)$", _read(units[0]), re.MULTILINE) if units else None
        owner = account(ran[1] if ran else self.user)
        for unit in units:
            yield Change(f"removed {unit}", partial(_remove, unit))
        if owner and owner.pw_gecos.rstrip(",") == COMMENT and not (DATA / "postgres").exists():
            yield Change(f"removed the system user {owner.pw_name}", partial(_remove_user, owner.pw_name))

    def _check_settings(self) -> None:
        """The settings that the services will read: the file's, or where none is written (a dry run), those that it
        would get."""
        try:
            variables = parse(SETTINGS.read_text(encoding="utf-8"))
        except FileNotFoundError:
            variables = dict(self.environment)
        except PermissionError:
            return
        if not any(variables.get(name) for name in DATABASE):
            raise ValidationError(
                f"SKYCTL_DATABASE_URL is not set in {SETTINGS}, and the services do not share an embedded database",
                "set it there and run this again; for an embedded database there is `skyctl up`",
            )
        settings.load(None, variables)


def settings_text(environment: Mapping[str, str]) -> str:
    """The settings file: what is set in the environment, and the rest as comments. Raises ValidationError."""
    blocks = ["# Read by skyctl-serve.service and skyctl-monitor.service. It holds secrets: only root may read it.\n"]
    rows = [(setting.variables, setting.meaning, setting.default) for setting in TABLE if setting.key != "data_dir"]
    for names, meaning, default in [*rows, *(((name,), meaning, "") for name, meaning in OPTIONS)]:
        value = next((environment[name] for name in names if environment.get(name)), None)
        if value and not value.isprintable():
            raise ValidationError(f"{names[0]}: the value holds a line's end or another control character", "remove it")
        line = f"#{names[0]}=" if value is None else f"{names[0]}={shlex.quote(value)}"
        blocks.append(f"# {meaning}{f' (default: {default})' if default else ''}\n{line}\n")
    return "\n".join(blocks)


def parse(text: str) -> dict[str, str]:
    """The variables of a settings file, as systemd reads it."""
    variables = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith(("#", ";")):
            try:
                variables[name.strip()] = " ".join(shlex.split(value))
            except ValueError:  # a quotation mark without its second one
                variables[name.strip()] = value
    return variables


def unit_text(name: str, user: str) -> str:
    """One unit, for the Python that runs this."""
    groups = {group.gr_name for group in grp.getgrall()}
    docker = "SupplementaryGroups=docker" if "docker" in groups else "# no group docker here: see DOCKER_HOST"
    python = '"' + sys.executable.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$") + '"'
    return _Template(_ours(name)).substitute(
        user=user, docker=docker, settings=SETTINGS, python=python, hardening=_ours("hardening.conf").rstrip()
    )


def _ours(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _check_reachable(program: Path) -> None:
    """Raise Refused where the services would not find this very skyctl."""
    for path in (program, program.resolve(), Path(__file__).resolve()):
        hidden = next((folder for folder in HIDDEN if path.is_relative_to(folder)), None)
        closed = next((parent for parent in path.parents if not parent.stat().st_mode & stat.S_IXOTH), None)
        if hidden or closed:
            raise Refused(
                f"skyctl runs from {path}, and the services may not enter {hidden or closed}",
                "install it where every user can read it: "
                "python3 -m venv /opt/skyctl; /opt/skyctl/bin/pip install skyctl",
            )


def _write_settings(text: str) -> None:
    SETTINGS.parent.mkdir(mode=0o755, exist_ok=True)
    write_private(SETTINGS, text)


def _strangers(user: str) -> list[Path]:
    """Return what in the data folder is not this user's, without what the embedded database keeps there."""
    owner = account(user)
    return folders.strangers(DATA, owner.pw_uid if owner else folders.ANYBODY, keep=OF_DATABASE)


def _hand_over(user: str) -> None:
    owner = pwd.getpwnam(user)
    folders.hand_over(DATA, owner.pw_uid, owner.pw_gid, keep=OF_DATABASE)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _write_unit(name: str, user: str) -> None:
    (FOLDER / name).write_text(unit_text(name, user), encoding="utf-8")
    (FOLDER / name).chmod(0o644)
    _run("systemctl", "daemon-reload")


def _start(name: str) -> None:
    _run("systemctl", "enable", "--quiet", name)
    if not _holds("restart", name):
        raise SkyctlError(f"{name} does not start", f"see `journalctl -u {name} -n 20`, then run this again")


def _remove(unit: Path) -> None:
    _run("systemctl", "disable", "--quiet", "--now", unit.name)
    unit.unlink()
    _run("systemctl", "daemon-reload")


def _remove_user(name: str) -> None:
    if DATA.exists():
        _hand_over("root")
    _run("userdel", name)


def _holds(*words: str) -> bool:
    return subprocess.run(["systemctl", "--quiet", *words], capture_output=True).returncode == 0


def _run(*command: str) -> None:
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise SkyctlError(f"{' '.join(command)}: {process.stderr.strip()}", "remove the cause and run this again")
