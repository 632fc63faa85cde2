"""The agent's unit: what it closes, and what it must leave open for the figures to be the host's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.agent.process import ROOT
from tests.support.helpers import need

UNIT = ROOT / "skyctl/installer/worker.service"
MOST_EXPOSED = 2.5


def test_a_guests_own_proc_is_left_in_place() -> None:
    assert not [line for line in UNIT.read_text().splitlines() if line.startswith(("ProtectProc=", "ProcSubset="))]


def test_it_is_as_closed_as_it_can_be(tmp_path: Path) -> None:
    """Looked at offline, where systemd cannot see that the user is not root's."""
    unit = tmp_path / "skypanel-worker.service"
    unit.write_text(re.sub(r"\$\w+", "nobody", re.sub("(?m)^ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text())))
    command = [need("systemd-analyze"), "security", "--offline=yes", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    if not found:
        pytest.skip(f"this systemd cannot look at a file: {done.stderr.strip()}")
    assert float(found[1]) <= MOST_EXPOSED
