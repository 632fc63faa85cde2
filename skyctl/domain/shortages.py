"""Shortages: a process, or its host, has no more files, memory or threads to give."""

import errno

NUMBERS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
NO_THREAD = "can't start new thread"  # the whole of what Python says


def shortage(error: BaseException) -> str:
    """Return what there is no more of, in the system's words; empty where the error is another one."""
    if isinstance(error, OSError) and error.errno in NUMBERS:
        return error.strerror or str(error)
    if isinstance(error, MemoryError):
        return "out of memory"
    return NO_THREAD if isinstance(error, RuntimeError) and str(error) == NO_THREAD else ""
