"""What a benchmark holds itself to: each figure beside its limit, for its exit code and the table of `make bench`."""

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

RECORD = "SKYCTL_BENCH_RECORD"  # the file into which all benchmarks of one run write their figures


class Limit(NamedTuple):
    """A figure and what it may be at most; with `least` what it has to be at least."""

    what: str
    figure: float
    limit: float
    unit: str
    least: bool = False

    @property
    def is_held(self) -> bool:
        """Whether it is."""
        return self.figure >= self.limit if self.least else self.figure <= self.limit


def hold(*limits: Limit) -> None:
    """Write the figures down, and end with exit code 1 where a limit is missed."""
    if record := os.environ.get(RECORD):
        with Path(record).open("a") as file:
            file.writelines(json.dumps([Path(sys.argv[0]).stem, *limit]) + "\n" for limit in limits)
    if missed := [limit.what for limit in limits if not limit.is_held]:
        sys.exit(f"missed: {', '.join(missed)}")
