"""A log file that takes a bounded room: only its owner reads it, and what is too much becomes the file before."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from skyctl.host import folders

MOST_BYTES = 1 << 20


class BoundedLog:
    """A log file of a folder. Where it would become larger than `most` bytes it is renamed to `NAME.1`, in place of the
    one that was there, and begun again.

    Raises OSError, and Refused where there is something else of that name.
    """

    def __init__(self, folder: Path, name: str, most: int = MOST_BYTES) -> None:
        self._name, self._most = name, most
        self._of_file = ExitStack()
        self._folder = folders.open_folder(folder)
        try:
            self._open()
        except BaseException:
            self._folder.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._of_file.close()
        self._folder.__exit__()

    def write(self, line: str) -> None:
        """Add a line. Raises OSError, and Refused as at the start."""
        added = f"{line}\n".encode(errors="backslashreplace")
        if self._size + len(added) > self._most:
            self._of_file.close()
            self._folder.rename(self._name, f"{self._name}.1")
            self._open()
        self._size += os.write(self._number, added)

    def _open(self) -> None:
        self._number = self._of_file.enter_context(self._folder.opened(self._name, make=True)).fileno()
        self._size = os.lseek(self._number, 0, os.SEEK_END)
