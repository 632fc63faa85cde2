"""How long a person waits for the command line, as ratios in one run:

skyctl --help    against `python -c pass`: at most 7 x
workers list     of 10,000 workers, its first page, against importing the libraries' modules that it imports:
                 at most 1.5 x
by the socket    the same by the unix socket of a `serve`, against that with the database: at most 0.6 x
completion       of a worker's name by the socket: at most 250 ms

`kubectl version --client` and `docker --version` are measured beside them where they are installed (on Debian
kubernetes-client, docker.io). With --beside FOLDER, `workers list` of another build that is installed in that virtual
environment is measured, too: by the socket it takes at most 0.3 x of that.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _limits import Limit, hold
from heartbeats import SECRET, prepare
from rich.console import Console
from rich.table import Table

from skyctl.host.postgres import EmbeddedPostgres

ROUNDS = 9
HELP_LIMIT, LIST_LIMIT, SOCKET_LIMIT, BESIDE_LIMIT, COMPLETION_LIMIT = 7.0, 1.5, 0.6, 0.3, 0.25
OTHERS = (("kubectl", "version", "--client"), ("docker", "--version"))
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


@contextmanager
def served(environment: dict[str, str]) -> Iterator[None]:
    """A `serve` that listens at its socket, too."""
    command = [sys.executable, "-m", "skyctl", "serve", "--port", "0"]
    with subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        next(line for line in process.stderr if "serve.sock" in line)
        yield
        process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="the virtual environment of another build")
    beside: Path | None = parser.parse_args().beside
    python, skyctl = sys.executable, str(Path(sys.executable).parent / "skyctl")
    with tempfile.TemporaryDirectory(prefix="skyctl-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "data").running() as url:
            # compiled, as a package that is installed is
            local = {"SKYCTL_DATA_DIR": f"{folder}/serve", "PYTHONDONTWRITEBYTECODE": ""}
            environment = local | {"SKYCTL_DATABASE_URL": url, "SKYCTL_JWT_SECRET": SECRET}
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
            line = {"_SKYCTL_COMPLETE": "complete_lines", "_SKYCTL_LINE": "skyctl workers show w"}
            commands = {
                "python -c pass": ([python, "-c", "pass"], environment),
                "skyctl --help": ([skyctl, "--help"], environment),
                "import libraries": ([python, "-c", found.stdout], environment),
                "workers list": ([skyctl, "workers", "list"], environment),
                "workers list, by the socket": ([skyctl, "workers", "list"], local),
                "completion, by the socket": ([skyctl], local | line),
            }
            commands |= {" ".join(other): (list(other), environment) for other in OTHERS if shutil.which(other[0])}
            if beside:
                commands["workers list, other build"] = ([str(beside / "bin/skyctl"), "workers", "list"], environment)
            times: dict[str, list[float]] = {name: [] for name in commands}
            with served(environment):
                for _ in range(ROUNDS):
                    for name, (command, variables) in commands.items():
                        times[name].append(seconds(command, variables))
    report({name: statistics.median(taken) for name, taken in times.items()})


def report(median: dict[str, float]) -> None:
    by_socket, completion, other = (
        "workers list, by the socket",
        "completion, by the socket",
        "workers list, other build",
    )
    ratios = {
        "skyctl --help": (median["skyctl --help"] / median["python -c pass"], HELP_LIMIT),
        "workers list": (median["workers list"] / median["import libraries"], LIST_LIMIT),
        by_socket: (median[by_socket] / median["workers list"], SOCKET_LIMIT),
        completion: (median[completion] / COMPLETION_LIMIT, 1.0),
    }
    if other in median:
        ratios[other] = (median[by_socket] / median[other], BESIDE_LIMIT)
    table = Table(title=f"median of {ROUNDS}")
    for heading in ("command", "ms", "ratio", "limit"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    for name, taken in median.items():
        ratio, limit = ratios.get(name, (None, None))
        table.add_row(name, f"{1000 * taken:.0f}", f"{ratio:.2f} x" if ratio else "", f"{limit:g} x" if limit else "")
    Console().print(table)
    hold(*(Limit(name, ratio, limit, "x") for name, (ratio, limit) in ratios.items()))


if __name__ == "__main__":
    main()
