"""Ending with the process that started this one. Light, since small programs of ours import it before anything else."""

import ctypes
import os

PR_SET_PDEATHSIG = 1  # of linux/prctl.h

_LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be


def end_with(parent: int, number: int) -> None:
    """Have the kernel send this process a signal once its parent has ended, or send it now where it has already.

    `parent` is the process id that the parent had when it started this one. The setting survives `exec`.
    """
    _LIBC.prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
