"""A log file stays small, its owner's alone, and no link."""

from pathlib import Path

import pytest

from skyctl.domain.errors import Refused
from skyctl.host.bounded_log import BoundedLog


def test_it_takes_a_bounded_room_and_keeps_the_last_lines(tmp_path: Path) -> None:
    for part in (range(25), range(25, 50)):  # two runs
        with BoundedLog(tmp_path, "up.log", most=100) as log:
            for number in part:
                log.write(f"line {number}")
    files = [tmp_path / "up.log.1", tmp_path / "up.log"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(0 < file.stat().st_size <= 100 and file.stat().st_mode & 0o777 == 0o600 for file in files)
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert lines == [f"line {number}" for number in range(50 - len(lines), 50)]


def test_it_writes_into_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "up.log").symlink_to("/dev/null")
    with pytest.raises(Refused, match="link"):
        BoundedLog(tmp_path, "up.log")


def test_a_character_that_no_file_holds_is_escaped(tmp_path: Path) -> None:
    with BoundedLog(tmp_path, "up.log") as log:
        log.write("\udcff")
    assert (tmp_path / "up.log").read_text() == "\\udcff\n"
