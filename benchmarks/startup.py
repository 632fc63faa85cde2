"""How long a person waits for the command line, as ratios in one run:

skyctl --help    against `python -c pass`: at most 15 x
workers list     of 10,000 workers, its first page, against importing the libraries' modules that it imports:
                 at most 1.5 x
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from heartbeats import SECRET, prepare
from rich.console import Console
from rich.table import Table

from skyctl.host.postgres import EmbeddedPostgres

ROUNDS = 9
HELP_LIMIT, LIST_LIMIT = 15.0, 1.5
FIND_LIBRARIES = """
import contextlib, os, sys
from skyctl.cli.app import main
sys.argv = ["skyctl", "workers", "list"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(open(os.devnull, "w")):
    main()
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
print("import " + ", ".join(name for name, file in files.items() if "site-packages" in file and "skyctl" not in name))
"""


def seconds(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    python, skyctl = sys.executable, str(Path(sys.executable).parent / "skyctl")
    with tempfile.TemporaryDirectory(prefix="skyctl-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "data").running() as url:
            # compiled, as a package that is installed is
            environment = {"SKYCTL_DATABASE_URL": url, "SKYCTL_JWT_SECRET": SECRET, "PYTHONDONTWRITEBYTECODE": ""}
            subprocess.run(
                [skyctl, "--quiet", "db", "init"], env=os.environ | environment, check=True, capture_output=True
            )
            prepare(url, 10_000)
            found = subprocess.run(
                [python, "-W", "ignore", "-c", FIND_LIBRARIES],
                env=os.environ | environment,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            commands = {
                "python -c pass": [python, "-c", "pass"],
                "skyctl --help": [skyctl, "--help"],
                "import libraries": [python, "-c", found.stdout],
                "workers list": [skyctl, "workers", "list"],
            }
            times: dict[str, list[float]] = {name: [] for name in commands}
            for _ in range(ROUNDS):
                for name, command in commands.items():
                    times[name].append(seconds(command, environment))
    report({name: statistics.median(taken) for name, taken in times.items()})


def report(median: dict[str, float]) -> None:
    ratios = {
        "skyctl --help": (median["skyctl --help"] / median["python -c pass"], HELP_LIMIT),
        "workers list": (median["workers list"] / median["import libraries"], LIST_LIMIT),
    }
    table = Table(title=f"median of {ROUNDS}")
    for heading in ("command", "ms", "ratio", "limit"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    for name, taken in median.items():
        ratio, limit = ratios.get(name, (None, None))
        table.add_row(name, f"{1000 * taken:.0f}", f"{ratio:.2f} x" if ratio else "", f"{limit:g} x" if limit else "")
    Console().print(table)
    if any(ratio > limit for ratio, limit in ratios.values()):
        raise SystemExit("above the limit")


if __name__ == "__main__":
    main()
