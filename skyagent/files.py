"""Files that have to survive whatever ends this process, or this host."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def forget_half(path: Path) -> None:
    """Remove what a killed process left half written of this file."""
    with suppress(OSError):
        _half(path).unlink()


def _half(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def keep(path: Path, content: bytes) -> None:
    """Make a file that only its owner reads hold this, in one step and for good: a power failure leaves the old or the
    new one.

    Raises OSError.
    """
    new = _half(path)
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
