"""The wheel of the manager: what it holds, and that it works away from the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import SECRET, clean_environment

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("skyctl-*.whl"))


def test_the_wheel_holds_what_is_needed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert archive.read("skyctl/schema.sql") == (ROOT / "schema.sql").read_bytes()
    assert {"skyctl/installer/parts/main.sh", "skyctl/units/skyctl-serve.service", "skyagent/pyproject.toml"} <= names
    assert "skyagent/__main__.py" in names
    assert not [name for name in names if name.startswith("tests")]


def test_it_works_installed(wheel: Path, tmp_path: Path, database_url: str) -> None:
    """Unpacked beside the libraries of this environment, without the checkout on the path."""
    installed = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    environment = clean_environment() | {
        "PYTHONPATH": str(installed),
        "SKYCTL_DATABASE_URL": database_url,
        "SKYCTL_JWT_SECRET": SECRET,
        "SKYCTL_DATA_DIR": str(tmp_path),
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert run("-c", "import skyctl; print(skyctl.__file__)").startswith(str(installed))
    assert "nothing" in run("-m", "skyctl", "db", "init")
    assert run("-m", "skyctl", "workers", "install-script").startswith("#!/bin/sh")
    assert run("-m", "skyagent", "--version").strip()
