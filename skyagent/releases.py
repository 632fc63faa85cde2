"""The choice of the agent's release: the installed one, one that was taken over from the manager since, or one on
trial.

Whatever is run in place of the installed one is signed by the key that is pinned on this host (`skyagent.pinned`), and
is checked each time before it runs. All of it is one file, `releases.json` in the state folder, and one archive beside
it for each release; each is written in one step, so whatever ends in the middle of something leaves what was there
before. Releases of different versions share the file: `skyagent.launch` of the installed one chooses by what another
one has written.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import tarfile
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from skyagent import __version__, files, pinned
from skyagent.pinned import Signed, Untrusted

T = TypeVar("T")
PACKAGE = "skyagent"
# The SHA-256 of the running release, handed to the agent by `skyagent.launch`; empty where it is not known.
RELEASE = "SKYAGENT_RELEASE"
TRIAL = "SKYAGENT_TRIAL_SECONDS"
# Within the two minutes after which a silent worker is offline, with the silence before and the start after.
TRIAL_SECONDS = 60.0
MOST_STARTS = 3
LARGEST_BYTES = 2**22
LARGEST_UNPACKED_BYTES = 2**24


class BadRelease(Exception):
    """An archive is not what was offered, or no agent; the message says why."""


@dataclass(frozen=True)
class Offer:
    """A release that the manager offers; `offered_at` tells an order from the same one given again."""

    release: Signed
    offered_at: str


@dataclass(frozen=True)
class Failed:
    """A release that was given up, by which order it had come, and why."""

    sha256: str
    offered_at: str
    reason: str


@dataclass(frozen=True)
class Trial:
    """A release that has not beaten yet: when it began (seconds since boot), how often it was started, and what is
    signed of it."""

    sha256: str
    offered_at: str
    began: float
    starts: int = 0
    version: str = ""
    signature: str = ""


@dataclass(frozen=True)
class State:
    """The known releases beside the installed one: `taken` runs instead of it, empty for none; `taken_*` is what is
    signed of it."""

    installed: str
    taken: str = ""
    trial: Trial | None = None
    failed: Failed | None = None
    taken_version: str = ""
    taken_signature: str = ""


@dataclass(frozen=True)
class Choice:
    """The release to run: its SHA-256, and its archive where it is not the installed one; on trial, for how long."""

    sha256: str
    archive: bytes | None = None
    trial_seconds: float | None = None


class Releases:
    """The releases of one host, in its state folder; `key` is the pinned one, `version` what runs here now."""

    def __init__(self, folder: Path, installed: str, key: bytes, version: str) -> None:
        self._folder = folder
        self._file = folder / "releases.json"
        self.installed = installed
        self.key = key
        self._version = version

    def read(self) -> State:
        """The state as it is stored; that of a host where nothing was taken over, where it was for another
        installation."""
        try:
            stored = json.loads(self._file.read_text("utf-8"))
            state = State(
                str(stored["installed"]),
                str(stored["taken"]),
                _part(Trial, stored["trial"]),
                _part(Failed, stored["failed"]),
                str(stored.get("taken_version", "")),
                str(stored.get("taken_signature", "")),
            )
        except (OSError, ValueError, LookupError, TypeError):
            return State(self.installed)
        return state if state.installed == self.installed else State(self.installed)

    def stage(self, offer: Offer, archive: bytes) -> None:
        """Put a release on trial from the next start on. Raises BadRelease, Untrusted, or OSError where it cannot be
        written."""
        release = offer.release
        if len(archive) != release.size or hashlib.sha256(archive).hexdigest() != release.sha256:
            raise BadRelease("its checksum is not the one that was offered")
        self.check(release)
        members(archive)
        files.keep(self._archive(release.sha256), archive)
        trial = Trial(
            release.sha256,
            offer.offered_at,
            time.monotonic(),
            version=release.version,
            signature=release.signature,
        )
        self._write(replace(self.read(), trial=trial))

    def check(self, release: Signed) -> None:
        """Raise Untrusted unless the release may be put on trial here."""
        pinned.check(self.key, release, self._version, self.read().taken_version)

    def confirm(self) -> None:
        """Take the release on trial over for good. Raises OSError."""
        state = self.read()
        trial = state.trial
        if trial:
            self._write(
                State(self.installed, trial.sha256, taken_version=trial.version, taken_signature=trial.signature)
            )
            self._forget_all_but(trial.sha256)

    def fail(self, failed: Failed) -> None:
        """Note a release that was given up, and end its trial. Raises OSError."""
        state = replace(self.read(), trial=None, failed=failed)
        self._write(state)
        self._forget_all_but(state.taken)

    def choose(self, trial_seconds: float) -> Choice:
        """Choose the release to run now. A trial that cannot be noted, or is over, is none: what ran before runs
        again."""
        state = self.read()
        try:
            if state.trial and (choice := self._try(state, state.trial, trial_seconds)):
                return choice
        except OSError as error:
            log_failure("release_not_tried", str(error))
        archive = self._load(state.taken) if state.taken else None
        if archive is None:
            return Choice(self.installed)
        try:
            taken = Signed(state.taken_version, state.taken, len(archive), state.taken_signature)
            pinned.check(self.key, taken, self._version)
        except Untrusted as error:
            log_failure("release_refused", f"{state.taken}: {error}")
            return Choice(self.installed)
        return Choice(state.taken, archive)

    def _try(self, state: State, trial: Trial, seconds: float) -> Choice | None:
        now = time.monotonic()
        began = trial.began if trial.began <= now else now  # the host was rebooted
        left = began + seconds - now
        archive = self._load(trial.sha256)
        if left <= 0:
            reason = f"no heartbeat of it was accepted within {seconds:g} s"
        elif trial.starts >= MOST_STARTS:
            reason = f"it ended {trial.starts} times before a heartbeat of it was accepted"
        elif archive is None:
            reason = "its archive is damaged"
        elif distrust := self._distrust(Signed(trial.version, trial.sha256, len(archive), trial.signature)):
            reason = distrust
        else:
            self._write(replace(state, trial=replace(trial, began=began, starts=trial.starts + 1)))
            return Choice(trial.sha256, archive, left)
        log_failure("release_failed", f"{trial.sha256}: {reason}")
        self.fail(Failed(trial.sha256, trial.offered_at, reason))
        return None

    def _distrust(self, release: Signed) -> str:
        """Why a release may not be put on trial; empty where it may."""
        try:
            self.check(release)
        except Untrusted as error:
            return str(error)
        return ""

    def _load(self, sha256: str) -> bytes | None:
        """An archive as it was taken over; None where it is not that any more."""
        try:
            archive = self._archive(sha256).read_bytes()
        except OSError:
            return None
        return archive if hashlib.sha256(archive).hexdigest() == sha256 else None

    def _archive(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.tar.gz"

    def _forget_all_but(self, sha256: str) -> None:
        for path in self._folder.glob("*.tar.gz*"):
            if path != self._archive(sha256):
                path.unlink(missing_ok=True)

    def _write(self, state: State) -> None:
        files.keep(self._file, json.dumps(asdict(state)).encode())


def of(environ: Mapping[str, str]) -> Releases | None:
    """The releases of this host, as the service manager names its state folder; None where there is no such folder."""
    folder = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Releases(Path(folder), _installed(), pinned.key(environ), __version__) if folder else None


def members(archive: bytes) -> dict[str, bytes]:
    """The files of a release by their path. Raises BadRelease where it is no agent."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            regular = [member for member in tar if member.isreg()]
            if sum(member.size for member in regular) > LARGEST_UNPACKED_BYTES:
                raise BadRelease("its archive unpacks to more than an agent")
            files = {member.name: _content(tar, member) for member in regular}
    except (tarfile.TarError, zlib.error, OSError, EOFError, ValueError) as error:
        raise BadRelease(f"it is no archive: {error}") from None
    paths = list(map(PurePosixPath, files))
    inside = all(path.parts[:1] == (PACKAGE,) and ".." not in path.parts for path in paths)
    if not inside or f"{PACKAGE}/__main__.py" not in files:
        raise BadRelease("its archive holds no agent")
    return files


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    return content.read() if content else b""


def unpack(archive: bytes, folder: Path) -> None:
    """Make a folder hold a release and nothing else. Raises BadRelease, OSError: also where what is left there cannot
    be removed, since it would be imported as well."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    for name, content in members(archive).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def log_failure(action: str, reason: str) -> None:
    """One line for the log, which `skyagent.launch` has not set up."""
    sys.stderr.write(f"action={action} reason={reason!r}\n")


def _part(kind: type[T], stored: Any) -> T | None:
    """A part of the state, without what a newer release may have added to it. Raises TypeError where something is
    missing."""
    return kind(**{field: stored[field] for field in kind.__annotations__ if field in stored}) if stored else None


def _installed() -> str:
    """The SHA-256 of the installed release, which the install script notes in the environment it makes; empty without
    one."""
    try:
        words = Path(sys.prefix, "release").read_text("utf-8").split()
    except (OSError, ValueError):
        return ""
    return words[1] if len(words) > 1 else ""
