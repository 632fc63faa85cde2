"""docs/glossary.md names what the code names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (?P<term>[^|]+) \| (?P<meaning>[^|]+) \|(?P<older>[^|]*)\|$", flags=re.MULTILINE)
FILES = [
    path
    for folder in ("skyctl", "skyagent", "tests/support", "tests/lab", "tests/operations")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".sh", ".service")
]
CODE = "\n".join(path.read_text() for path in [*FILES, ROOT / "schema.sql"])


def rows() -> list[tuple[str, str, str]]:
    """Return the glossary's terms, each with its meaning and its older words."""
    rows = [
        (row["term"], row["meaning"], row["older"]) for row in ROW.finditer((ROOT / "docs/glossary.md").read_text())
    ]
    return [row for row in rows if row[0] != "term"]


def occurs(term: str, code: str = CODE) -> bool:
    """Whether the words of a term follow one another in the code, in whatever way they are joined there."""
    pattern = r"[\s_.-]*".join(map(re.escape, term.strip("`").split()))
    return re.search(pattern, code, re.IGNORECASE) is not None


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_the_code_uses_the_term_or_the_name_that_it_quotes(row: tuple[str, str, str]) -> None:
    assert any(occurs(word) for word in [row[0], *re.findall(r"`([^`]+)`", " ".join(row[1:]))])


@pytest.mark.parametrize("word", sorted({word for row in rows() for word in re.findall(r"`([^`]+)`", " ".join(row))}))
def test_the_code_has_the_names_that_are_quoted(word: str) -> None:
    assert occurs(word)


def test_each_term_stands_once_and_has_a_meaning() -> None:
    terms = [term for term, _, _ in rows()]
    assert len(terms) == len(set(terms)) > 60
    assert all(meaning.strip() for _, meaning, _ in rows())


def test_it_would_notice() -> None:
    assert not occurs("carrier pigeon")
    assert occurs("mass failure", "declare_mass_failure(tx)")
