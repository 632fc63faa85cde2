"""What this host takes for a release: one that is signed by the key which its install script has pinned.

The key is root's file, and so is this code where `skyagent.launch` runs it: neither is replaced by an upgrade.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skyagent import ed25519

# The file of the public key, in Base64, as the unit names it.
KEY_FILE = "SKYAGENT_RELEASE_KEY"
VERSION = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})*")
NONE_PINNED = "no key of releases is pinned on this host: run a new install script here"


class Untrusted(Exception):
    """A release is not to be run; the message says why."""


@dataclass(frozen=True)
class Signed:
    """What is signed of a release: its archive, by SHA-256 and size, and its version; and the signature, in Base64."""

    version: str
    sha256: str
    size: int
    signature: str

    @property
    def statement(self) -> bytes:
        """Return the bytes that are signed."""
        return f"skyagent release\n{self.version}\n{self.sha256}\n{self.size}\n".encode("utf-8", "backslashreplace")


def key(environ: Mapping[str, str]) -> bytes:
    """The pinned key; empty where there is none that can be used."""
    path = environ.get(KEY_FILE)
    try:
        found = base64.b64decode(Path(path).read_bytes().strip(), validate=True) if path else b""
    except (OSError, ValueError):
        return b""
    return found if len(found) == ed25519.KEY_BYTES else b""


def check(pinned: bytes, release: Signed, *ran: str) -> None:
    """Raise Untrusted unless the release is signed by the pinned key, and no lower than the versions that ran here."""
    if not pinned:
        raise Untrusted(NONE_PINNED)
    try:
        signature = base64.b64decode(release.signature, validate=True)
    except (ValueError, TypeError):
        signature = b""
    if not ed25519.is_good(pinned, release.statement, signature):
        raise Untrusted("it is not signed by the key that is pinned on this host")
    for version in ran:
        if _order(release.version) < _order(version):
            raise Untrusted(f"its version {release.version} is lower than {version}, which has run here")


def _order(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with; what follows them, as in 1.0rc1, is not compared."""
    found = VERSION.match(version)
    numbers = [int(number) for number in found[0].split(".")] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
