"""Each row of docs/security.md and of docs/reliability.md names tests, and they exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADS = ("| reaches for |", "| promise |", "| |", "| **", "|---")
ROWS = [
    pytest.param(line, cells, id=line.split("|")[1].strip()[:60])
    for name, cells in (("security", 3), ("reliability", 2))
    for line in (ROOT / f"docs/{name}.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(HEADS)
]
TEST = re.compile(r"`(tests/[\w/]+\.(?:py|txt))(?:::(test_\w+))?`")


@pytest.mark.parametrize(("row", "count"), ROWS)
def test_each_row_is_shown_by_tests_that_exist(row: str, count: int) -> None:
    cells = row.strip("| ").split(" | ")
    assert len(cells) == count, "what is reached for or promised, what happens, shown by"
    named = TEST.findall(cells[-1])
    assert named
    for file, test in named:
        assert (f"def {test}(" if test else "") in (ROOT / file).read_text(), f"{file}::{test}"


def test_each_of_the_five_has_rows() -> None:
    sections = re.split(r"^## ", (ROOT / "docs/security.md").read_text(), flags=re.MULTILINE)[1:6]
    assert [section[0] for section in sections] == ["W", "L", "S", "N", "U"]
    assert all("::test_" in section for section in sections)
