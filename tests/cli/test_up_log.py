"""What `skyctl up` shows of its parts' lines, and where they are kept."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from skyctl.cli.up_log import UpLog

pytestmark = pytest.mark.in_process


@contextmanager
def no_room() -> Iterator[None]:
    """No file may become longer meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def shown(log: UpLog, width: int, rows: int) -> list[str]:
    console = Console(file=StringIO(), width=width)
    return [line.rstrip() for line in log.last(console, rows).plain.splitlines()]


def test_lines_are_folded_and_none_is_shown_in_part(tmp_path: Path) -> None:
    with UpLog(tmp_path) as log:
        for line in ("first one two three", "second", "third, and its remedy"):
            log.take("up", line)
        assert shown(log, 12, 5) == ["up: second", "up: third,", "and its", "remedy"]
        assert shown(log, 12, 7) == ["up: first", "one two", "three", "up: second", "up: third,", "and its", "remedy"]
        assert shown(log, 12, 2) == ["and its", "remedy"], "of one that is too long the end, where the remedy is"
        assert shown(log, 200, 5) == ["up: first one two three", "up: second", "up: third, and its remedy"]


def test_where_the_disk_is_full_it_is_said_once_and_goes_on(tmp_path: Path) -> None:
    with UpLog(tmp_path) as log:
        with no_room():
            log.take("serve", "one")
            log.take("serve", "two")
        log.take("serve", "three")
        assert shown(log, 200, 9) == [
            "serve: one",
            "up: up.log takes no lines: [Errno 27] File too large",
            "serve: two",
            "serve: three",
        ]
    assert [line.split(" ", 2)[2] for line in (tmp_path / "up.log").read_text().splitlines()] == ["serve: three"]


def test_no_password_is_kept(tmp_path: Path) -> None:
    with UpLog(tmp_path) as log:
        assert "hunter2" not in log.take("serve", "cannot reach postgresql://me:hunter2@db/panel")
    assert "hunter2" not in (tmp_path / "up.log").read_text()
