"""How a command begins and ends: signals before it has begun, errors, and what --debug adds to them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SECRET, Cli, Process, clean_environment

AWAY = {"SKYCTL_DATABASE_URL": "postgresql://127.0.0.1:1/x", "SKYCTL_JWT_SECRET": SECRET}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_loads_ends_it_without_a_word(number: signal.Signals, tmp_path: Path) -> None:
    """The interpreter says what it loads; the command would run for ever."""
    command = [sys.executable, "-X", "importtime", "-m", "skyctl", "monitor"]
    process = Process(command, AWAY | {"SKYCTL_DATA_DIR": str(tmp_path)})
    process.until("typer.colors")
    code = process.stop(number)
    said = [line for line in process.seen if not line.startswith("import time:")]
    assert code == 0 or (code, said) == (128 + number, []), "0 is for who had begun to work by then"
    assert process.popen.stderr
    process.popen.stderr.close()


def test_nohup_is_heard(tmp_path: Path) -> None:
    """A SIGHUP that the parent had ignored stays ignored; the next SIGTERM counts."""
    process = Process(["nohup", sys.executable, "-m", "skyctl", "monitor"], AWAY | {"SKYCTL_DATA_DIR": str(tmp_path)})
    process.until("action=database_lost")
    process.popen.send_signal(signal.SIGHUP)
    assert process.stop(signal.SIGTERM) == 0
    assert process.popen.stderr
    process.popen.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "traceback"),
    [
        (["workers", "list"], False),
        (["workers", "list", "--search", "--debug"], False),
        (["--debug", "workers", "list"], True),
    ],
)
def test_only_the_option_debug_shows_a_traceback(arguments: list[str], traceback: bool) -> None:
    failed = Cli(AWAY)(*arguments)
    assert failed.returncode == 5
    assert ("Traceback" in failed.stderr) is traceback
    assert failed.stderr.splitlines()[-2].startswith("error: ")


def test_the_console_script_is_the_module() -> None:
    script = Path(sys.executable).parent / "skyctl"
    said = subprocess.run([script, "--version"], env=clean_environment(), capture_output=True, text=True, check=True)
    assert said.stdout == Cli()("--version").stdout
