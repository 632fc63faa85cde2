"""What the manager is installed from: exact versions with checksums, the same as everywhere else."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")
# What only another system needs is in no list of versions that we run.
ELSEWHERE = re.compile(r"sys_platform == 'win32'")


def name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", text, maxsplit=1)[0]).lower()


def locked(file: str) -> dict[str, str]:
    """By name, what is written of each: version, marker, checksums."""
    text = "".join(line for line in (ROOT / file).read_text().splitlines(keepends=True) if line[0] != "#")
    return {name(entry): entry for entry in re.split(r"\n(?=\S)", text.strip())}


CONSTRAINTS = {name(line): line.partition("==")[2] for line in (ROOT / "constraints.txt").read_text().split()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("file", LOCKS)
def test_each_version_is_that_of_the_constraints_and_has_checksums(file: str) -> None:
    entries = locked(file)
    assert len(entries) > 40
    for package, entry in entries.items():
        head, *checksums = re.split(r"\s*\\\n\s*", entry)
        assert checksums, package
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", checksum) for checksum in checksums), package
        if not ELSEWHERE.search(head):
            assert head.partition(" ;")[0].partition("==")[2] == CONSTRAINTS[package], package


def test_all_that_the_project_names_is_locked() -> None:
    run, dev = (locked(file) for file in LOCKS)
    assert {name(wanted) for wanted in PROJECT["dependencies"]} | {"hatchling", "editables"} <= run.keys()
    assert {name(wanted) for wanted in PROJECT["optional-dependencies"]["dev"]} <= dev.keys()
    assert {package: dev[package] for package in run} == run
    assert dev.keys() - {package for package, entry in dev.items() if ELSEWHERE.search(entry)} == CONSTRAINTS.keys()


def test_no_address_of_a_registry_is_written_down() -> None:
    for file in LOCKS:
        assert not re.search(r"://|--(extra-)?index|--find-links|@ file", (ROOT / file).read_text())


def test_make_installs_nothing_without_checksums() -> None:
    """But the two tools of `make lock` and `make dist`, in an environment of their own: docs/security.md says so."""
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if re.search(r"""pip["']? install""", line)]
    [tools] = [line for line in installs if line.startswith("WITH_TOOL = ")]
    installs.remove(tools)
    assert len(installs) == 3
    assert all("--require-hashes" in line or "--no-deps --no-build-isolation" in line for line in installs)
    pinned = re.findall(r"^(?:UV|CYCLONEDX) := [\w-]+==[\d.]+$", makefile, re.MULTILINE)
    assert len(pinned) == 2
