"""The import law of docs/architecture.md, read from the sources."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "__main__": 9,
    "cli": 8,
    "api": 7,
    "wiring": 6,
    "monitor": 6,
    "operations": 5,
    "store": 4,
    "units": 4,
    "documents": 3,
    "settings": 3,
    "notifiers": 3,
    "rules": 2,
    "host": 2,
    "swarm": 2,
    "installer": 2,
    "domain": 1,
    "lazy": 0,
}
CALLERS = {"admin": 2, "agents": 1, "monitor": 1, "shared": 0}
"""The floors within `operations`: whoever calls them."""
LIBRARIES = {
    "sqlalchemy": {"store"},
    "psycopg": {"store"},
    "docker": {"swarm"},
    "typer": {"cli"},
    "rich": {"cli"},
    "starlette": {"api"},
    "uvicorn": {"api"},
    "uvloop": {"api"},
    "anyio": {"api"},
    "prometheus_client": {"api", "monitor"},
    "apprise": {"notifiers"},
    "httpx": {"host"},
    "psutil": {"host"},
    "cryptography": {"host"},
    "jwt": {"rules"},
    "orjson": {"documents"},
}
NOT_FROM = {
    "cli": {"store", "rules"},
    "api": {"store", "rules"},
    "operations": {"swarm", "settings", "notifiers"},
    "rules": {"documents"},
}
VIEWS_KNOW = {"skyctl.cli", "skyctl.documents", "skyctl.domain.events", "skyctl.domain.states", "skyctl.domain.text"}
"""What tables are made with: documents, as a server answers them, and never the values that they were made from."""
MOST_ROOMS, MOST_CALLERS, MOST_INNER_IMPORTS = 20, 5, 40


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    paths = [path.relative_to(ROOT) for package in ("skyctl", "skyagent") for path in sources(package)]
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): ROOT / path for path in paths}


def imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Every import statement, at the top or inside, and what it names; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def imported(path: Path) -> set[str]:
    return {name for _, name in imports(ast.parse(path.read_text()))}


def used_by_name(path: Path) -> set[str]:
    """What a file uses of the names that it imports, dotted: `from skyctl import host` and `host.x509` name
    skyctl.host.x509."""
    tree = ast.parse(path.read_text())
    bound = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    return {
        f"{bound[node.value.id]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound
    }


def rooms(path: Path) -> list[tuple[str, str]]:
    """The (room, file) pairs of our own modules that a file imports."""
    found = []
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "skyctl" and len(parts) > 1:
            found.append((parts[1], parts[2] if len(parts) > 2 else ""))
    return found


@pytest.mark.parametrize("path", sources("skyctl"), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_only_go_down(path: Path) -> None:
    inside = path.relative_to(ROOT / "skyctl")
    room = inside.parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for target, file in rooms(path):
        assert target in FLOORS, f"{inside} imports {target}, which has no floor"
        assert target not in NOT_FROM.get(room, set()), f"{inside} may not know {target}"
        if target != room:
            assert FLOORS[target] < FLOORS[room], f"{inside} imports {target}, an arrow up or across"
        elif room == "operations" and len(inside.parts) > 2 and file != inside.parts[1]:
            assert CALLERS[file] < CALLERS[inside.parts[1]], f"{inside} imports operations of {file}"


@pytest.mark.parametrize("path", sources("skyctl/cli/views"), ids=lambda path: path.stem)
def test_views_know_documents_alone(path: Path) -> None:
    for name in imported(path):
        is_known = name == "skyctl.lazy" or any(name.startswith(f"{known}.") for known in VIEWS_KNOW)
        assert is_known or not name.startswith("skyctl."), f"{path.name} imports {name}"


def test_no_import_runs_in_a_circle() -> None:
    """Of modules, with the imports inside of functions; a package that only names its submodules for type
    checkers is none, and whoever uses a submodule by such a package's name imports it."""
    known = modules()
    lazy = {name for name, path in known.items() if "= lazy.submodules(" in path.read_text()}
    arrows = {
        name: {
            target for target in (_module_of(found, known) for found in imported(path) | used_by_name(path)) if target
        }
        for name, path in known.items()
        if name not in lazy
    }
    done: set[str] = set()
    for start in arrows:
        _walk(start, arrows, [], done)


def _module_of(name: str, known: dict[str, Path]) -> str | None:
    return next((one for one in (name, name.rpartition(".")[0]) if one in known), None)


def _walk(name: str, arrows: dict[str, set[str]], path: list[str], done: set[str]) -> None:
    assert name not in path, f"a circle: {' > '.join([*path[path.index(name) :], name])}"
    if name not in done:
        for target in sorted(arrows.get(name, ())):
            if target != name:
                _walk(target, arrows, [*path, name], done)
        done.add(name)


def test_the_house_stays_small() -> None:
    rooms = {path.name.removesuffix(".py") for path in (ROOT / "skyctl").iterdir() if path.name != "__pycache__"}
    assert rooms - {"__init__"} == set(FLOORS)
    assert len(FLOORS) <= MOST_ROOMS
    assert all(isinstance(floor, int) for floor in [*FLOORS.values(), *CALLERS.values()])
    callers = {path.name for path in (ROOT / "skyctl/operations").iterdir() if path.is_dir()} - {"__pycache__"}
    assert callers == set(CALLERS)
    assert len(callers) <= MOST_CALLERS


def test_imports_within_functions_are_few_and_say_why() -> None:
    found: Counter[str] = Counter()
    for path in sources("skyctl"):
        text = path.read_text()
        lines = text.splitlines()
        for function in ast.walk(ast.parse(text)):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in {node for node, _ in imports(function)}:
                why = "#" in lines[node.lineno - 1] or lines[node.lineno - 2].lstrip().startswith("#")
                assert why, f"{path}:{node.lineno} does not say why it is no import at the top"
                found[f"{path}:{node.lineno}"] = 1
    assert found.total() <= MOST_INNER_IMPORTS


@pytest.mark.parametrize("path", sources("skyctl"), ids=lambda path: str(path.relative_to(ROOT)))
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    room = path.relative_to(ROOT / "skyctl").parts[0].removesuffix(".py")
    for name in imported(path):
        library = name.split(".")[0]
        assert room in LIBRARIES.get(library, {room}), f"{path} imports {library}"
        assert library != "skyagent", f"{path} imports the agent's internals"


@pytest.mark.parametrize("path", sources("skyagent"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_agent_knows_nothing_of_the_manager(path: Path) -> None:
    import sys

    for name in imported(path):
        library = name.split(".")[0]
        assert library in {"skyagent", "httpcore", "psutil"} | sys.stdlib_module_names, f"{path} imports {library}"


def test_the_law_would_notice(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from skyctl.store import db\n    import sqlalchemy\n")
    assert ("store", "db") in rooms(bad)
    assert "sqlalchemy" in imported(bad)
    bad.write_text("from skyctl import host\nhost.x509.key()\n")
    assert "skyctl.host.x509" in used_by_name(bad)


def test_functions_and_files_can_be_read_at_a_glance() -> None:
    for path in sources("skyctl") + sources("skyagent"):
        text = path.read_text()
        assert text.count("\n") <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno <= 60, f"{path}: {node.name}"
