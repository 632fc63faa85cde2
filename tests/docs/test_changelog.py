"""CHANGELOG.md and SECURITY.md speak of the version that the program has."""

import re
from pathlib import Path

from skyagent import __version__

ROOT = Path(__file__).parents[2]
HEADING = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", flags=re.MULTILINE)


def test_the_newest_heading_is_the_version() -> None:
    assert HEADING.findall((ROOT / "CHANGELOG.md").read_text())[0][0] == __version__


def test_the_headings_go_from_the_newest_to_the_oldest() -> None:
    headings = HEADING.findall((ROOT / "CHANGELOG.md").read_text())
    versions = [tuple(map(int, version.split("."))) for version, _ in headings]
    assert versions == sorted(versions, reverse=True)
    assert [date for _, date in headings] == sorted((date for _, date in headings), reverse=True)


def test_the_version_is_a_supported_one() -> None:
    minor = ".".join(__version__.split(".")[:2])
    assert f"| {minor}.x | yes |" in (ROOT / "SECURITY.md").read_text()
