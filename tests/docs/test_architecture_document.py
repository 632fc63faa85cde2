"""docs/architecture.md and docs/house.md against the code: the rooms with their floors, every file, and the walks."""

import ast
import os
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.test_architecture import FLOORS, imported, modules, sources

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/architecture.md"
HOUSE = ROOT / "docs/house.md"
ROOM = re.compile(r"^\| (\d) \| `skyctl/([\w.]+?)(?:\.py|/)?` \| (.+) \|$", flags=re.MULTILINE)
STEP = re.compile(r"^(?P<indent> *)(?P<name>\w+(?:\.\w+)+)(?:  .*)?$")
VIA = re.compile(r"^via (?P<means>[\w ]+): (?P<word>\w+)$")
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
MODULES = modules()


def chapter(title: str) -> str:
    """Return a chapter of the document, without its heading."""
    return DOCUMENT.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_rooms_in_the_document_are_the_folders_with_their_floors() -> None:
    rooms = {name: int(floor) for floor, name, _ in ROOM.findall(chapter("The house"))}
    assert rooms == FLOORS


def house() -> str:
    """Return docs/house.md as the docstrings of the files say it."""
    folders: dict[Path, list[Path]] = {}
    for path in [*sources("skyctl"), *sources("skyagent")]:
        folders.setdefault(path.parent, []).append(path)
    parts = [
        "# Every file and what it is for\n\nMade from the docstrings of the files; "
        "`UPDATE_DOCUMENTS=1 .venv/bin/python -m pytest tests/docs/test_architecture_document.py` writes it again.\n"
    ]
    for folder, paths in folders.items():
        rows = [f"| `{path.name}` | {purpose(path)} |\n" for path in paths if path.name != "__init__.py"]
        table = f"\n| file | purpose |\n|---|---|\n{''.join(rows)}" if rows else ""
        parts.append(f"\n## {folder.relative_to(ROOT)}/\n\n{purpose(folder / '__init__.py')}\n{table}")
    return "".join(parts)


def purpose(path: Path) -> str:
    """Return the first paragraph of a file's docstring, as one line of a table."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("|", "\\|")


def test_every_file_stands_in_the_house() -> None:
    """With UPDATE_DOCUMENTS=1 the page is written again."""
    if os.environ.get("UPDATE_DOCUMENTS"):
        HOUSE.write_text(house())
    assert HOUSE.read_text() == house()


class Step(NamedTuple):
    """A function or method of a walk, and the index of the step that it is indented under, if any."""

    name: str
    caller: int | None


class Part(NamedTuple):
    """The steps of a walk up to its next `via` line, and the word by which that line hands over to the part after."""

    steps: list[Step]
    handed_over_by: str | None


def walks() -> dict[str, str]:
    """Return the text of each walk by its title."""
    pieces = re.split(r"^### (.+)\n", chapter("Four walks"), flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def parts(text: str) -> list[Part]:
    """Return the parts of a walk. Raises AssertionError for a line of its block that is no step."""
    parts, steps, open_steps = [], list[Step](), list[tuple[int, int]]()
    for line in re.findall(r"^ {4}(.*)", text, flags=re.MULTILINE):
        if via := VIA.match(line):
            parts.append(Part(steps, via["word"]))
            steps, open_steps = [], []
            continue
        step = STEP.match(line)
        assert step, f"no step: {line!r}"
        depth = len(step["indent"])
        open_steps = [(other, index) for other, index in open_steps if other < depth]
        steps.append(Step(step["name"], open_steps[-1][1] if open_steps else None))
        open_steps.append((depth, len(steps) - 1))
    return [*parts, Part(steps, None)]


class Function(NamedTuple):
    """The code of a step: its module, its class if it is a method, its name and its syntax tree."""

    module: str
    owner: str
    name: str
    tree: FUNCTION


@cache
def functions() -> dict[str, Function]:
    """Return every function and method of ours by its dotted name; those of skyctl without that word."""
    return {
        f"{module}.{qualified}".removeprefix("skyctl."): Function(module, owner, tree.name, tree)
        for module, path in MODULES.items()
        for owner, qualified, tree in _defined(ast.parse(path.read_text()))
    }


def _defined(module: ast.Module) -> Iterator[tuple[str, str, FUNCTION]]:
    for node in module.body:
        if isinstance(node, FUNCTION):
            yield "", node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from (
                (node.name, f"{node.name}.{method.name}", method)
                for method in node.body
                if isinstance(method, FUNCTION)
            )


def mentioned(tree: ast.AST) -> set[str]:
    """Return every name and attribute within a piece of code."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def reaches(caller: Function, callee: Function) -> bool:
    """Whether the caller names the callee, or the class of which it is a method, and its file can know it."""
    if not mentioned(caller.tree) & {callee.name, callee.owner} - {""}:
        return False
    if callee.owner or caller.module == callee.module:
        return True
    return any(f"{callee.module}.".startswith(f"{name}.") for name in _known_to(caller.module))


@cache
def _known_to(module: str) -> frozenset[str]:
    names = imported(MODULES[module])
    return frozenset(
        names | {name.rpartition(".")[0] for name in names if name.rpartition(".")[0] in MODULES} - {"skyctl"}
    )


def text_of(function: Function) -> str:
    """Return a function's code, with that of the constants of its file that it names."""
    source = MODULES[function.module].read_text()
    names = mentioned(function.tree)
    constants = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign | ast.AnnAssign) and mentioned(node) & names
    ]
    return "\n".join(ast.get_source_segment(source, node) or "" for node in [function.tree, *constants])


def faults(text: str) -> list[str]:
    """Return what is wrong with a walk, in words."""
    known, walk = functions(), parts(text)
    faults = [f"there is no {step.name}" for part in walk for step in part.steps if step.name not in known]
    for part in walk:
        for step in part.steps:
            caller = part.steps[step.caller].name if step.caller is not None else ""
            if caller in known and step.name in known and not reaches(known[caller], known[step.name]):
                faults.append(f"{caller} does not name {step.name}")
    for before, after in pairwise(walk):
        for side in (before, after):
            code = "\n".join(text_of(known[step.name]) for step in side.steps if step.name in known)
            if not re.search(rf"\b{before.handed_over_by}\b", code, re.IGNORECASE):
                faults.append(f"{before.handed_over_by} stands in no step of {[step.name for step in side.steps]}")
    return faults


def test_there_are_four_walks() -> None:
    assert len(walks()) == 4


@pytest.mark.parametrize("title", walks())
def test_a_walk_passes_functions_that_exist_and_name_one_another(title: str) -> None:
    assert faults(walks()[title]) == []


@pytest.mark.parametrize(
    ("walk", "fault"),
    [
        ("    monitor.loop.Monitor.stroll\n", "there is no monitor.loop.Monitor.stroll"),
        (
            "    monitor.loop.Monitor.run\n      rules.health.assess\n",
            "monitor.loop.Monitor.run does not name rules.health.assess",
        ),
        (
            "    store.db.notify_news\n    via NOTIFY: pigeon\n    store.db.Database.listening\n",
            "pigeon stands in no step of ['store.db.notify_news']",
        ),
    ],
)
def test_it_would_notice(walk: str, fault: str) -> None:
    assert fault in faults(walk)


PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *(ROOT / "docs").rglob("*.md"),
]
PAGES += [ROOT / "findings/README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`((?:skyctl|skyagent|tests|benchmarks|docs)/[\w/.-]*)`", text)
    linked = [target.partition("#")[0] for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text)]
    missing = [path for path in named if not (ROOT / path).exists()]
    missing += [target for target in linked if target and not (page.parent / target).exists()]
    assert missing == []
