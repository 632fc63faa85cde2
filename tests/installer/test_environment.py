"""The agent's environment, by the real pip and venv: whatever the settings of pip, and under another Python later."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import skyagent
from tests.installer.test_script import SCRIPT, functions
from tests.support.helpers import PATIENCE_SECONDS

PYTHON = Path(sys.executable).resolve()
# The install script's own functions in a folder; `check_agent` has been asked.
PREPARED = (
    functions(SCRIPT)
    + """
scratch=$1/scratch home=$1/home bundle=$1/bundle log=$1/log
venv=$home/venv runner=$home/run applied=$home/applied command_file=$1/bin/skyagent
python=$2 LC_ALL=C
mkdir -p "$scratch" "$home"
check_agent
cp "$1/requirements.txt" "$scratch/requirements.txt"
"""
)
INSTALL = PREPARED + "install_agent && write_runner && write_command || { cat $log >&2; exit 9; }\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the agent's libraries as small wheels that hold nothing."""
    (tmp_path / "bundle/wheels").mkdir(parents=True)
    lines = []
    for name in ("httpx", "psutil"):
        wheel = tmp_path / f"bundle/wheels/{name}-1-py3-none-any.whl"
        info = f"{name}-1.dist-info"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{name}.py", "")
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        lines.append(f"{name}==1 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    (tmp_path / "requirements.txt").write_text("".join(lines))
    return tmp_path


def run(folder: Path, script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-s", str(folder), str(PYTHON)],
        input=script,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def version(folder: Path) -> str:
    """What the agent's command says."""
    command = [str(folder / "bin/skyagent"), "--version"]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS).stdout.strip()


ASTRAY = {
    "user": "true",
    "target": "{}/elsewhere",
    "prefix": "{}/elsewhere",
    "root": "{}/elsewhere",
}


@pytest.mark.parametrize("by", ["file", "variable"])
def test_no_setting_of_pip_leads_the_libraries_elsewhere(folder: Path, by: str) -> None:
    """Each of them would lead astray alone, and pip refuses some of them together: none may be heard."""
    variables = {f"PIP_{name.upper()}": value for name, value in ASTRAY.items()}
    if by == "file":
        lines = [f"{name} = {value.format(folder)}\n" for name, value in ASTRAY.items()]
        (folder / ".config/pip").mkdir(parents=True)
        (folder / ".config/pip/pip.conf").write_text("[install]\n" + "".join(lines))
        variables = {}
    done = run(folder, INSTALL, **{key: value.format(folder) for key, value in variables.items()})
    assert done.returncode == 0, done.stderr
    assert not (folder / "elsewhere").exists()
    assert version(folder) == skyagent.__version__


def test_an_environment_that_is_not_whole_takes_the_place_of_none(folder: Path) -> None:
    assert run(folder, INSTALL).returncode == 0
    (folder / "home/venv/release").write_text("of another version")
    (folder / ".config/pip").mkdir(parents=True)
    (folder / ".config/pip/pip.conf").write_text("[install]\ndry-run = true\n")
    done = run(folder, INSTALL.replace("log=$1/log", "log=$1/log2"))
    assert (done.returncode, version(folder)) == (42, skyagent.__version__)
    assert "error W42: pip has not put the agent's libraries into " in done.stderr


def test_the_agent_survives_another_minor_version_of_python(folder: Path) -> None:
    """As a release upgrade leaves it: the libraries are in the folder of the former version."""
    assert run(folder, INSTALL).returncode == 0
    (library,) = (folder / "home/venv/lib").iterdir()
    library.rename(library.with_name("python3.1"))
    assert version(folder) == skyagent.__version__


def test_the_agent_survives_the_loss_of_its_python(folder: Path) -> None:
    """As where it was installed by the `python3.9` of the former release."""
    assert run(folder, INSTALL).returncode == 0
    for link in (folder / "home/venv/bin").glob("python*"):
        link.unlink()
    assert version(folder) == skyagent.__version__


def test_where_no_python_can_be_used_it_says_what_to_do(folder: Path) -> None:
    assert run(folder, INSTALL).returncode == 0
    for library in (folder / "home/venv/lib").glob("*/site-packages/psutil.py"):
        library.unlink()
    done = subprocess.run(
        [str(folder / "bin/skyagent")],
        env={"PATH": "/usr/bin:/bin"},  # whoever runs the tests may have a Python with the same libraries
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 1
    assert "hint: run its install script again: skyctl workers install-script" in done.stderr


def test_it_runs_what_the_unit_and_the_uninstaller_ask_it_to(folder: Path) -> None:
    assert run(folder, INSTALL).returncode == 0
    for words, said in (
        (("skyagent.launch", "--version"), skyagent.__version__),
        (("-c", "import psutil, sys; print(psutil.__name__)"), "psutil"),
    ):
        command = ["sh", str(folder / "home/run"), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert (done.returncode, done.stdout.strip()) == (0, said), done.stderr
