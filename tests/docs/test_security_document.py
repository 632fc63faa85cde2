"""Each row of docs/security.md names tests, and they exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (ROOT / "docs/security.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| reaches for |", "| |", "| **"))
]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:60])
def test_each_row_is_shown_by_tests_that_exist(row: str) -> None:
    cells = row.strip("| ").split(" | ")
    assert len(cells) == 3, "what is reached for, what happens, shown by"
    named = TEST.findall(cells[2])
    assert named
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


def test_each_of_the_five_has_rows() -> None:
    sections = re.split(r"^## ", (ROOT / "docs/security.md").read_text(), flags=re.MULTILINE)[1:6]
    assert [section[0] for section in sections] == ["W", "L", "S", "N", "U"]
    assert all("::test_" in section for section in sections)
