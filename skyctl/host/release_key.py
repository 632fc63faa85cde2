"""The key that signs the agent's releases: one file, of whoever administers; `skyctl serve` does not have it.

It is a private Ed25519 key in PEM, so that openssl can make one as well.
"""

import base64
import os
from collections.abc import Callable
from pathlib import Path

from skyctl import host
from skyctl.domain.errors import Refused
from skyctl.host import data_dir

RESTORE = "restore it from a backup; or make another one, which each host pins by a new install script"


class ReleaseKey:
    """The key in the file; it is read when it is first needed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def is_here(self) -> bool:
        """Tell whether there is a key that this user may read."""
        return os.access(self.path, os.R_OK)

    def make(self) -> None:
        """Make a key where there is none. Raises Refused where this user cannot, ValidationError for its folder."""
        if self.path.exists():
            raise Refused(f"{self.path} may not be read by this user", "call this as the user who administers skyctl")
        try:
            with data_dir.opened(self.path.parent, make=True) as folder, data_dir.alone(folder):
                if not folder.has(self.path.name):
                    folder.write(self.path.name, host.signatures.make_key())
        except OSError as error:
            raise Refused(
                f"{self.path}, the key of releases, cannot be made: {error.strerror}",
                "call this as the user who administers skyctl",
            ) from error

    def public(self) -> str:
        """Return what hosts pin: the public half, in Base64. Raises Refused where the file holds no such key."""
        return self._encoded(host.signatures.public_half)

    def sign(self, statement: bytes) -> str:
        """Return the signature of a statement, in Base64. Raises Refused where the file holds no such key."""
        return self._encoded(lambda key: host.signatures.sign(key, statement))

    def _encoded(self, make: Callable[[bytes], bytes]) -> str:
        try:
            return base64.b64encode(make(self.path.read_bytes())).decode()
        except OSError as error:
            raise Refused(f"{self.path}, the key of releases, cannot be read: {error.strerror}", RESTORE) from error
        except ValueError:
            raise Refused(f"{self.path} holds no private Ed25519 key in PEM", RESTORE) from None
