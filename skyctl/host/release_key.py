"""The key that signs the agent's releases: one file, of whoever administers; `skyctl serve` does not have it.

It is a private Ed25519 key in PEM, so that openssl can make one as well.
"""

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING

from skyctl.domain.errors import Refused
from skyctl.host import data_dir

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

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
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # here, since it loads slowly
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        if self.path.exists():
            raise Refused(f"{self.path} may not be read by this user", "call this as the user who administers skyctl")
        data_dir.prepare(self.path.parent)
        key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            data_dir.write_private(self.path, key.decode(), replace=False)
        except OSError as error:
            raise Refused(
                f"{self.path}, the key of releases, cannot be made: {error.strerror}",
                "call this as the user who administers skyctl",
            ) from error

    def public(self) -> str:
        """Return what hosts pin: the public half, in Base64. Raises Refused where the file holds no such key."""
        return base64.b64encode(self._read().public_key().public_bytes_raw()).decode()

    def sign(self, statement: bytes) -> str:
        """Return the signature of a statement, in Base64. Raises Refused where the file holds no such key."""
        return base64.b64encode(self._read().sign(statement)).decode()

    def _read(self) -> "Ed25519PrivateKey":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # here, since it loads slowly
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(self.path.read_bytes(), None)
        except OSError as error:
            raise Refused(f"{self.path}, the key of releases, cannot be read: {error.strerror}", RESTORE) from error
        except (ValueError, TypeError):
            raise Refused(f"{self.path} holds no private key in PEM", RESTORE) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise Refused(f"{self.path} holds no Ed25519 key", RESTORE)
        return key
