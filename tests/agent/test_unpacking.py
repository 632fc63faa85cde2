"""A release is unpacked into an empty folder, or not at all."""

from pathlib import Path

import pytest

from skyagent import releases
from skyctl import installer


def test_nothing_that_an_agent_has_left_is_run_with_a_release(tmp_path: Path) -> None:
    """S, W: the folder belongs to the agent's user, and stays where the service starts again."""
    left = tmp_path / "left"
    left.mkdir()
    (left / "httpx.py").write_text("raise SystemExit('left by an agent')")
    folder = tmp_path / "release"
    folder.symlink_to(left)
    with pytest.raises(OSError, match="symbolic link"):
        releases.unpack(installer.agent_archive(), folder)
    assert [path.name for path in left.iterdir()] == ["httpx.py"]


def test_a_former_release_makes_room(tmp_path: Path) -> None:
    (tmp_path / "httpx.py").touch()
    releases.unpack(installer.agent_archive(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["skyagent"]
