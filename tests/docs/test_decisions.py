"""The records of docs/adr: numbered, dated, listed, and cited by numbers that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
HEAD = re.compile(
    r"# (?P<number>\d{4})\. .+\n\nDate: \d{4}-\d{2}-\d{2}  \n"
    r"Status: (?:accepted|superseded by \[(?P<new>\d{4})\]\((?P<file>[\w-]+\.md)\))\n"
)


def test_the_numbers_have_no_gap() -> None:
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_record_has_a_date_a_status_and_a_decision(record: Path) -> None:
    text = record.read_text()
    head = HEAD.match(text)
    assert head
    assert head["number"] == record.name[:4]
    assert "\n## Decision\n" in text
    if head["file"]:
        assert head["file"].startswith(head["new"])
        assert (record.parent / head["file"]).exists()


def test_the_index_lists_each_record_once() -> None:
    listed = re.findall(r"^\| \[\d{4}\]\((.+?)\) \|", (ROOT / "docs/adr/README.md").read_text(), flags=re.MULTILINE)
    assert listed == [record.name for record in RECORDS]


def test_a_record_that_the_code_cites_exists() -> None:
    files = [path for folder in ("skyctl", "skyagent", "tests") for path in (ROOT / folder).rglob("*.py")]
    cited = {number for path in files for number in re.findall(r"\bADR (\d{4})\b", path.read_text())}
    assert cited <= {record.name[:4] for record in RECORDS}
