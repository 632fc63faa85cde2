"""Shortages, as tests bring them about in processes that run."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def short_of_files(pid: int) -> Iterator[None]:
    """The process can open no file more; what it has open, it keeps."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
