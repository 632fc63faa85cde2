"""A file system that says what a failing one says: the kernel's own FUSE, and a server that answers with one error."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from pathlib import Path

from tests.support.helpers import PATIENCE_SECONDS

MOST_BYTES = 1 << 18
# fuse(4): the heads of requests and of answers, and the two answers that are no error.
ASKED, ANSWERED = struct.Struct("=IIQQIIII"), struct.Struct("=IiQ")
INIT, GETATTR, TOP = 26, 3, 1
BEGUN = struct.pack("=IIIIHHIIHHI28x", 7, 31, 4096, 0, 1, 1, 4096, 1, 1, 0, 0)
FOLDER = struct.pack("=QIIQQQQQQIIIIIIIIII", 0, 0, 0, TOP, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)
WITHOUT_ANSWER = (2, 36, 42)  # forget, interrupt, and many of the first


def mount(path: Path) -> int:
    """Mount a file system whose server is whoever reads from the descriptor that this returns, if anybody does."""
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"served", str(path).encode(), b"fuse", 0, options) == 0, os.strerror(ctypes.get_errno())
    return server


class Failing:
    """A file system whose top is a folder; whatever else it is asked, it answers with an error."""

    def __init__(self, path: Path, error: int) -> None:
        self._error, self._server = error, mount(path)
        self._serving = threading.Thread(target=self._serve)
        self._serving.start()

    def end(self) -> None:
        """Wait for the end, which comes with that of the mount."""
        self._serving.join(PATIENCE_SECONDS)
        os.close(self._server)

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._server, MOST_BYTES)
            except OSError as error:
                assert error.errno == errno.ENODEV, error
                return
            _, asked, unique, node, *_ = ASKED.unpack_from(request)
            if asked in WITHOUT_ANSWER:
                continue
            content = {INIT: BEGUN, GETATTR: FOLDER if node == TOP else b""}.get(asked, b"")
            head = ANSWERED.pack(ANSWERED.size + len(content), 0 if content else -self._error, unique)
            os.write(self._server, head + content)
