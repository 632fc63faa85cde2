"""Nothing is imported from the folder in which a command is called: others may write there."""

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from skyctl.host import interpreter
from skyctl.notifiers.apprise import Channels, names
from tests.conftest import Process, clean_environment
from tests.support.helpers import eventually, ready
from tests.support.notifier_contract import ALERT
from tests.support.webhook import webhook

CONSOLE_SCRIPT = Path(sys.executable).with_name("skyctl")
MARK = "open({mark!r}, 'a').write(__name__ + '\\n')\nraise SystemExit('imported from the working folder')\n"
MODULES = ("json", "pip", "runpy", "multiprocessing", "subprocess", "apprise", "sitecustomize", "usercustomize")
PACKAGES = ("skyctl", "skyagent", "uvicorn", "multiprocessing")


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, which is the working one, full of modules that leave a mark when they are imported."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    text = MARK.format(mark=str(tmp_path / "mark"))
    for name in MODULES:
        (folder / f"{name}.py").write_text(text)
    for name in PACKAGES:
        (folder / name).mkdir()
        for file in ("__init__", "__main__"):
            (folder / name / f"{file}.py").write_text(text)
    monkeypatch.chdir(folder)
    return folder


def marks(hostile: Path) -> list[str]:
    mark = hostile.parent / "mark"
    return mark.read_text().splitlines() if mark.exists() else []


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [CONSOLE_SCRIPT, *arguments],
        env=clean_environment() | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_up_and_its_parts(hostile: Path, open_folder: Path) -> None:
    process = Process([str(CONSOLE_SCRIPT), "up"], {"SKYCTL_DATA_DIR": str(open_folder / uuid4().hex[:8])})
    try:
        process.until("action=accepted")
        assert process.stop() == 0
    finally:
        process.popen.kill()
        process.popen.wait()
        assert process.popen.stderr
        process.popen.stderr.close()
    assert marks(hostile) == []


def test_a_server_of_several_processes(hostile: Path, database_url: str, tmp_path: Path) -> None:
    given = {"SKYCTL_DATABASE_URL": database_url, "SKYCTL_DATA_DIR": str(tmp_path / "data")}
    assert run("db", "init", **given).returncode == 0
    process = Process([str(CONSOLE_SCRIPT), "serve", "--port", "0", "--processes", "2"], given)
    try:
        url = process.until("listening on").split("listening on ")[1].strip()
        eventually(lambda: ready(url) or marks(hostile))
        process.stop()
    finally:
        process.popen.kill()
        process.popen.wait()
        assert process.popen.stderr
        process.popen.stderr.close()
    assert marks(hostile) == []


def test_pip_for_a_bundle(hostile: Path) -> None:
    done = subprocess.run([*interpreter.command("pip"), "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("pip "), done.stderr
    assert marks(hostile) == []


def test_the_sender_of_alerts(hostile: Path) -> None:
    with webhook() as hook:
        [name] = names([hook.url])
        with Channels([hook.url]).opened(name) as send:
            send(ALERT)
    assert marks(hostile) == []
