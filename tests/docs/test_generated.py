"""What is generated into the documents is what the program says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from skyctl.settings import TABLE
from tests.conftest import clean_environment

ROOT = Path(__file__).parents[2]
START, END = "<!-- settings: made from skyctl/settings.py -->\n", "<!-- end of settings -->\n"


def settings_table() -> str:
    rows = [
        f"| `{'`, `'.join(setting.variables)}` | `{setting.key}` | {setting.default} | {setting.meaning} |\n"
        for setting in TABLE
    ]
    return "| environment | key in the file | default | meaning |\n|---|---|---|---|\n" + "".join(rows)


def test_the_readmes_settings_are_the_programs() -> None:
    """With UPDATE_DOCUMENTS=1 the README is written anew."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(START)
    _, after = rest.split(END)
    wanted = before + START + settings_table() + END + after
    if os.environ.get("UPDATE_DOCUMENTS"):
        readme.write_text(wanted)
    assert readme.read_text() == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completions_are_the_programs(shell: str) -> None:
    """With UPDATE_DOCUMENTS=1 the files are written anew."""
    script = Path(sys.executable).parent / "skyctl"
    made = subprocess.run(
        [script],
        env=clean_environment() | {"_SKYCTL_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    file = ROOT / "completions" / f"skyctl.{shell}"
    if os.environ.get("UPDATE_DOCUMENTS"):
        file.write_text(made)
    assert file.read_text() == made
