"""Run what needs neither root nor an hour, one after the other, and print every figure that has a limit in one table.

Exit code 1 where a limit is missed. Each benchmark alone says more, and takes other sizes: `python benchmarks/NAME.py`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _limits import RECORD, Limit
from rich.console import Console
from rich.table import Table

# by how long they take; with the sizes that let all of them end within 15 minutes on two cores
RUNS = (
    ("startup",),
    ("placement",),
    ("swarm_pass",),
    ("alerts",),
    ("agent",),
    ("monitor",),
    ("strangers",),
    ("heartbeats",),
    ("storm", "--hosts", "2000"),
    ("retention", "--rows", "200000"),
    ("million",),
)


def main() -> None:
    """Run them all."""
    table = Table("benchmark", "what", "figure", "limit", "", title="figures with a limit")
    all_held = True
    with tempfile.NamedTemporaryFile("r", prefix="skyctl-bench-") as record:
        for name, *sizes in RUNS:
            started = time.monotonic()
            sys.stdout.write(f"== {name}\n")
            sys.stdout.flush()
            command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *sizes]
            done = subprocess.run(command, env=os.environ | {RECORD: record.name})
            taken = f"{time.monotonic() - started:.0f} s"
            limits = [Limit(*json.loads(line)[1:]) for line in record.readlines()]
            for limit in limits:
                most = f"{'at least' if limit.least else 'at most'} {limit.limit:,g} {limit.unit}"
                told = "" if limit.is_held else "missed"
                figure = f"{limit.figure:,.0f}" if limit.figure >= 1000 else f"{limit.figure:.3g}"
                table.add_row(name, limit.what, f"{figure} {limit.unit}", most, told)
            if done.returncode and all(limit.is_held for limit in limits):
                table.add_row(name, f"ended with {done.returncode}", "", "", "failed")
            table.add_row("", f"took {taken}", "", "", end_section=True)
            all_held = all_held and done.returncode == 0
    Console(width=110).print(table)
    sys.exit(not all_held)


if __name__ == "__main__":
    main()
