"""What the documents list is what the program has."""

from pathlib import Path

from skyctl.domain.errors import ExitCode

ROOT = Path(__file__).parents[2]


def test_the_readme_names_every_exit_code() -> None:
    sentence = "Exit codes: " + ", ".join(f"{code:d} {code.meaning}" for code in ExitCode) + "."
    assert sentence in " ".join((ROOT / "README.md").read_text().split())
