"""`serve` and `monitor` as services of this host's systemd: their units, the settings that these read, the two users as
whom they run.

The database URL and the secrets are in the settings files alone, which only root reads. What an administrator has
written there stays, and so do the data at an uninstall.
"""

import grp
import os
import re
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
from skyctl.host.data_dir import write_private
from skyctl.host.system_users import account, system_account
from skyctl.units import data_folders, settings_files

UNITS = ("skyctl-serve.service", "skyctl-monitor.service")
FOLDER = Path("/etc/systemd/system")
USER = "skyctl"
OF_MONITOR = "-monitor"  # the name of the monitor's user is that of the other and this
COMMENT = "skyctl services"  # tells a user that was made here from one that was there
KEPT = (settings_files.SERVE, settings_files.MONITOR, data_folders.SERVE, data_folders.MONITOR)
DATABASE = ("SKYCTL_DATABASE_URL", "DATABASE_URL")
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
    """The services as they shall be: `serve` run by this user, the monitor by one of its own, with these settings where
    none are written yet."""

    user: str
    environment: Mapping[str, str]

    def check(self, *, changes: bool) -> None:
        """Raise Refused or ValidationError where this host or what was given does not allow for them."""
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,22}", self.user) or self.user == "root":
            raise ValidationError(f"--user: {self.user!r} is not a system user's name", "such as skyctl; never root")
        if self.environment.get("SKYCTL_CONFIG"):
            raise ValidationError(
                "SKYCTL_CONFIG, --config: the services read no such file",
                f"set what it holds in {settings_files.SERVE} instead",
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
        for name, folder in self._folders:
            if not account(name):
                yield Change(f"made the system user {name}", partial(system_account, name, folder, COMMENT))
        yield from self._settle_settings()
        configured = self._check_settings()
        if data_folders.is_unmade():
            yield Change(f"made {data_folders.MONITOR}", data_folders.make_monitors)
        if data_folders.has_roots_authority():
            yield Change(f"gave {data_folders.MONITOR} the authority", data_folders.take_authority)
        for name, folder in self._folders:
            if data_folders.strangers(folder, name):
                yield Change(f"handed {folder} over to {name}", partial(data_folders.hand_over, folder, name))
        if data_folders.has_left_key():
            yield Change(f"took the authority's key out of {data_folders.SERVE}", data_folders.remove_left_key)
        if not (configured and configured.jwt_secret) and data_folders.lacks_secret():
            yield Change("gave both services the same signing secret", data_folders.share_secret)
        texts = self._unit_texts()
        stale = [name for name, text in texts.items() if _read(FOLDER / name) != text]
        for name in stale:
            yield Change(f"wrote {FOLDER / name}", partial(_write_unit, name, texts[name]))
        for name in texts:
            if name in stale or not _holds("is-active", name) or not _holds("is-enabled", name):
                yield Change(f"started {name}", partial(_start, name))

    def uninstall(self) -> Iterator[Change]:
        """Give the changes that are due until only the settings files and the data are left, which are root's then."""
        units = [name for name in UNITS if (FOLDER / name).exists()]
        owners = [
            (account(_user_of(name) or user), folder) for name, (user, folder) in zip(UNITS, self._folders, strict=True)
        ]
        for name in units:
            yield Change(f"removed {FOLDER / name}", partial(_remove, FOLDER / name))
        keeps_database = (data_folders.SERVE / "postgres").exists()
        for owner, folder in owners:
            if not owner or owner.pw_gecos.rstrip(",") != COMMENT or (keeps_database and folder == data_folders.SERVE):
                continue
            yield Change(f"removed the system user {owner.pw_name}", partial(_remove_user, owner.pw_name, folder))

    @property
    def _folders(self) -> tuple[tuple[str, Path], tuple[str, Path]]:
        """The user of `serve` and that of the monitor, each with its data folder."""
        return (self.user, data_folders.SERVE), (f"{self.user}{OF_MONITOR}", data_folders.MONITOR)

    def _unit_texts(self) -> dict[str, str]:
        return {name: unit_text(name, user) for name, (user, _) in zip(UNITS, self._folders, strict=True)}

    def _settle_settings(self) -> Iterator[Change]:
        """Have two settings files, closed to others, with what is the monitor's in its own."""
        shared, monitors = settings_files.SERVE, settings_files.MONITOR
        is_new = not shared.exists()
        if is_new:
            text = settings_files.text_of(shared, self.environment)
            yield Change(f"wrote {shared}", partial(_write_settings, shared, text))
        try:
            before = _read(shared)
            present = _read(monitors) or settings_files.text_of(monitors, self.environment if is_new else {})
        except PermissionError:  # a dry run of somebody else
            return
        text = settings_files.with_monitors(present, before)
        if text != _read(monitors):
            yield Change(f"wrote {monitors}", partial(_write_settings, monitors, text))
        without = settings_files.without_monitors(before)
        if without != before:
            yield Change(f"left what is the monitor's out of {shared}", partial(_write_settings, shared, without))
        for file in (shared, monitors):
            if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077:
                yield Change(f"closed {file} to others", partial(file.chmod, 0o600))

    def _check_settings(self) -> settings.Settings | None:
        """The settings that the services will read: the files', or where none are written (a dry run), those that they
        would get; None where this user may not read them."""
        try:
            texts = [_read(file) for file in (settings_files.SERVE, settings_files.MONITOR)]
        except PermissionError:
            return None
        variables = settings_files.parse("".join(texts)) if any(texts) else dict(self.environment)
        if not any(variables.get(name) for name in DATABASE):
            raise ValidationError(
                f"SKYCTL_DATABASE_URL is not set in {settings_files.SERVE}, "
                "and the services do not share an embedded database",
                "set it there and run this again; for an embedded database there is `skyctl up`",
            )
        if variables.get("SKYCTL_DATA_DIR") and any(texts):
            raise ValidationError(
                "SKYCTL_DATA_DIR is set in a settings file, and each service has a data folder of its own",
                f"take its line out of {settings_files.SERVE} and {settings_files.MONITOR}, and move what is in that "
                f"folder to {data_folders.SERVE}",
            )
        return settings.load(None, variables)


def installed_user() -> str:
    """The user as whom `serve` runs here; the usual one where it is not installed."""
    return _user_of(UNITS[0]) or USER


def _user_of(unit: str) -> str:
    ran = re.search(r"^User=(.+)$", _read(FOLDER / unit), re.MULTILINE)
    return ran[1] if ran else ""


def unit_text(name: str, user: str) -> str:
    """One unit, for the Python that runs this."""
    groups = {group.gr_name for group in grp.getgrall()}
    docker = "SupplementaryGroups=docker" if "docker" in groups else "# no group docker here: see DOCKER_HOST"
    python = '"' + sys.executable.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$") + '"'
    return _Template(_ours(name)).substitute(
        user=user,
        docker=docker,
        shared=settings_files.SERVE,
        monitors=settings_files.MONITOR,
        python=python,
        hardening=_ours("hardening.conf").rstrip(),
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


def _write_settings(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o755, exist_ok=True)
    write_private(file, text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _write_unit(name: str, text: str) -> None:
    (FOLDER / name).write_text(text, encoding="utf-8")
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


def _remove_user(name: str, folder: Path) -> None:
    if folder.exists():
        data_folders.hand_over(folder, "root")
    _run("userdel", name)


def _holds(*words: str) -> bool:
    return subprocess.run(["systemctl", "--quiet", *words], capture_output=True).returncode == 0


def _run(*command: str) -> None:
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise SkyctlError(f"{' '.join(command)}: {process.stderr.strip()}", "remove the cause and run this again")
