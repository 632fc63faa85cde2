"""Folders for what a process and its children share while they run: out of reach of whatever tidies up /tmp, made again
where they are missing all the same, and removed with their process, or at the next start where that was killed."""

import fcntl
import os
import secrets
from contextlib import ExitStack
from pathlib import Path

from skyctl.host import data_dir, locks
from skyctl.host.folders import Folder, link

LOCK = ".lock"
OF_ROOT = Path("/run/skyctl")


def above(data_folder: Path) -> Path:
    """Return where they are: in the folder that the service manager keeps for this service, else in the data folder.

    Root's are never in the data folder, which may be another user's: libraries open files in them by path, and follow
    links.
    """
    if own := os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        return Path(own)
    return OF_ROOT if os.geteuid() == 0 else data_folder / "run"


class RuntimeFolder:
    """One such folder, in the folder `where`; nothing is made before `make`."""

    def __init__(self, where: Path, kind: str) -> None:
        self._where, self._kind = where, kind
        self._name = f"{kind}-{secrets.token_hex(8)}"
        self._held = ExitStack()
        self.path = where / self._name

    def make(self) -> None:
        """Make it where it is missing. Raises ValidationError, OSError where this user cannot, Refused where others
        could put another in its place."""
        if self.path.is_dir():
            return
        self._held.close()
        with data_dir.opened(self._where, make=True) as where:
            lock = self._held.enter_context(where.opened(self._name + LOCK, make=True))
            fcntl.flock(lock, fcntl.LOCK_EX)
            with where.folder(self._name, make=True, mode=0o700):
                pass
            self._remove_left(where)

    def remove(self) -> None:
        """Remove it, with all that is in it. Raises what `make` does."""
        if self._where.is_dir():
            with data_dir.opened(self._where) as where:
                _remove(where, self._name)
        self._held.close()

    def _remove_left(self, where: Folder) -> None:
        """Remove those whose process is gone."""
        for path in link(where.number).iterdir():
            name = path.name.removesuffix(LOCK)
            if path.name == name + LOCK and name.startswith(f"{self._kind}-") and name != self._name:
                with where.opened(path.name) as lock:
                    if locks.taken(lock, fcntl.LOCK_EX):
                        _remove(where, name)


def _remove(where: Folder, name: str) -> None:
    where.remove_folder(name)
    where.remove(name + LOCK)
