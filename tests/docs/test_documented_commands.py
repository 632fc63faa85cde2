"""Every `skyctl ...` in the documents, and in the hints of the program itself, is a command that exists, with its
options."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from prometheus_client import REGISTRY
from typer._click.exceptions import MissingParameter, UsageError

import skyctl.api.app
import skyctl.monitor.metrics  # noqa: F401 - both name their metrics
from skyctl import units
from skyctl.cli.app import program
from skyctl.domain.errors import ValidationError
from skyctl.settings.table import TABLE

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BEFORE = r"(?:sudo |\$ |[A-Z_]+=\S+ |[\w./-]*/)*"  # a prompt, settings, the folder of the program
COMMAND = re.compile(rf"^{BEFORE}skyctl (?P<words>(?!\d+\.\d+\.\d+$).+)$")  # not what `skyctl version` says
NOUNS = ("worker", "service", "migration")  # what `{noun}` is in a hint that several commands share
END = re.compile(r"\s(?:[|&;<>#(]|\d>)|[;)]|$")  # of a command's own words, in a shell


class Shown(NamedTuple):
    """A command as a document shows it; in prose its arguments may be left out."""

    document: str
    words: str
    in_prose: bool


def commands(document: str, text: str) -> Iterator[Shown]:
    """Yield the commands of code, at the start of a line or behind a pipe, and those of prose, between backticks."""
    prose = []
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            for part in line.strip().split(" | "):
                if command := COMMAND.match(part):
                    yield Shown(document, END.split(command["words"])[0], False)
        else:
            prose.append(line)
    yield from in_prose(document, "\n".join(prose))


def in_prose(document: str, text: str) -> Iterator[Shown]:
    """Yield the commands between backticks."""
    for span in re.findall(r"`([^`]+)`", text):
        for part in " ".join(span.split()).split(" | "):
            if command := COMMAND.match(part):
                yield Shown(document, command["words"], True)


def check(shown: Shown) -> None:
    """Raise UsageError where the command line does not know the command.

    Arguments may be missing in prose, and where the command ends in dots.
    """
    command: Any = program()
    words, context = shlex.split(shown.words), None
    elided = re.search(r"(^| )\.\.\.$", shown.words) is not None
    words = words[:-1] if elided else words
    try:
        while hasattr(command, "resolve_command") and (words or not elided):
            context = command.make_context(command.name or "skyctl", words, parent=context)
            words = [*context._protected_args, *context.args]
            if words or not elided:
                _, command, words = command.resolve_command(context, words or [""])
        if not elided or words:
            command.make_context(command.name, words, parent=context)
    except typer.Exit:  # it was asked for help
        return
    except MissingParameter:
        if not (shown.in_prose or elided):
            raise


SHOWN = [shown for path in DOCUMENTS for shown in commands(str(path.relative_to(ROOT)), path.read_text())]
for path in (ROOT / "skyctl").rglob("*.py"):
    for line in path.read_text().splitlines():
        for noun in NOUNS if "{noun}" in line else [""]:
            SHOWN += in_prose(str(path.relative_to(ROOT)), line.replace("{noun}", noun))


@pytest.mark.parametrize("shown", sorted(set(SHOWN)), ids=lambda shown: f"{shown.document}: {shown.words}")
def test_it_exists(shown: Shown) -> None:
    check(shown)


def test_every_document_is_read() -> None:
    assert {"README.md", "CHANGELOG.md", "docs/operations.md", "docs/walkthrough.md"} <= {
        shown.document for shown in SHOWN
    }


@pytest.mark.parametrize(
    "text",
    [
        "    $ skyctl workers lst",
        "`skyctl workers`",
        "`skyctl workers list --colour`",
        "    skyctl workers show",
        "    skyctl workers list -o xml",
        "`sudo skyctl nothing ...`",
        "```\nA=1 skyctl up --fast # now\n```",
        "    skyctl workers install-script --fast | ssh root@HOST sh",
        "    cat x | .venv/bin/skyctl db initialize",
    ],
)
def test_it_would_notice(text: str) -> None:
    (shown,) = commands("a document", text)
    with pytest.raises((UsageError, ValidationError)):
        check(shown)


def test_what_is_left_out_in_prose_is_not_missed() -> None:
    for text in (
        "`skyctl migrations\n approve`",
        "`skyctl --help`",
        "`skyctl workers ...`",
        "    skyctl workers list >list 2>&1 &",
    ):
        (shown,) = commands("a document", text)
        check(shown)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_metrics_and_the_settings_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    names = {f"{family.name}{suffix}" for family in REGISTRY.collect() for suffix in ("", "_total", "_count")}
    names |= set(re.findall(r"\bskyctl_[a-z_]+", (ROOT / "schema.sql").read_text()))
    assert set(re.findall(r"`(skyctl_[a-z_]+)`", text)) <= names
    options = units.settings_files.OPTIONS.values()
    known = {variable for setting in TABLE for variable in setting.variables} | {name for name, _ in options}
    assert set(re.findall(r"\bSKYCTL_[A-Z_]+", text)) <= known | {"SKYCTL_CONFIG", "SKYCTL_CONTEXT"}
