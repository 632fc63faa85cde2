"""The import law of docs/architecture.md, read from the sources."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "cli": 7,
    "__main__": 8,
    "api": 6,
    "monitor": 6,
    "meters": 5,
    "couriers": 5,
    "mover": 5,
    "wiring": 5,
    "operations": 4,
    "rules": 3,
    "store": 3,
    "swarm": 3,
    "notify": 3,
    "installer": 3,
    "probe": 3,
    "settings": 3,
    "embedded": 3,
    "units": 3.5,
    "documents": 3,
    "manifest": 2.5,
    "wire": 2,
    "programs": 2,
    "workload": 1.5,
    "keyring": 1.5,
    "certificates": 1.5,
    "engine": 1.2,
    "data_folder": 1,
    "accounts": 1,
    "model": 1,
    "trust": 1,
    "logs": 0,
    "signals": 0,
    "systemd": 0,
    "errors": 0,
    "sender": 0,
}
GROUNDS = {
    "store": {"tables", "db", "rows"},
    "rules": {"tasks", "tokens"},
    "operations": {
        "world",
        "leadership",
        "presence",
        "placing",
        "telling",
        "starting",
        "issuing",
        "joining",
        "upgrades",
        "workers",
    },
    "swarm": {"address", "connection", "specs", "readings"},
    "cli": {"context", "show", "child", "following", "terminal", "panels", "top", "reasons", "lists", "arguments"},
    "api": {"answers", "openapi", "connection"},
}
ENTRANCES = {"swarm/__init__.py", "installer/bundle.py", "cli/app.py", "cli/system.py", "api/app.py", "api/server.py"}
LIBRARIES = {
    "sqlalchemy": {"store"},
    "psycopg": {"store"},
    "docker": {"swarm"},
    "typer": {"cli"},
    "rich": {"cli"},
    "starlette": {"api"},
    "uvicorn": {"api"},
    "prometheus_client": {"api", "meters"},
    "apprise": {"sender"},
    "anyio": {"api"},
    "httpx": {"probe"},
    "psutil": {"embedded", "certificates"},
    "cryptography": {"certificates"},
    "jwt": {"rules"},
    "orjson": {"wire"},
}
NOT_FROM = {
    "cli": {"store", "rules"},
    "api": {"store", "rules"},
    "operations": {"swarm", "settings", "notify"},
    "rules": {"wire"},
}


def house() -> dict[str, str]:
    """What docs/architecture.md says of each file and folder of ours, by its path."""
    chapter = (ROOT / "docs/architecture.md").read_text().split("## The house\n")[1].split("Arrows only go down")[0]
    pieces = re.split(r"^    (sky\S+)", chapter, flags=re.M)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def test_the_house_in_the_documents_has_every_file_and_no_other() -> None:
    told = house()
    files = [path.relative_to(ROOT) for package in ("skyctl", "skyagent") for path in sources(package)]
    rooms = {f"{path.parent}/": [each.stem for each in files if each.parent == path.parent] for path in files}
    alone = {str(path) for path in files if str(path.parent) == "skyctl" and not path.stem.startswith("__")}
    assert set(told) == alone | set(rooms) - {"skyctl/"}
    missing = [
        f"{room}{file}"
        for room, names in rooms.items()
        for file in names
        if room in told and file != "__init__" and not re.search(rf"\b{file}\b", told[room])
    ]
    assert missing == []


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside; `from a import b` counts as a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(path: Path) -> list[tuple[str, str]]:
    """The (floor's room, file) pairs of our own modules that a file imports."""
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
        if target == room:
            assert file in GROUNDS.get(room, set()) or str(inside) in ENTRANCES, f"{inside} imports its sibling {file}"
        else:
            assert FLOORS[target] < FLOORS[room], f"{inside} imports {target}, an arrow up or across"


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
        assert library in {"skyagent", "httpx", "psutil"} | sys.stdlib_module_names, f"{path} imports {library}"


def test_the_law_would_notice(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from skyctl.store import db\n    import sqlalchemy\n")
    assert ("store", "db") in rooms(bad)
    assert "sqlalchemy" in imported(bad)


def test_functions_and_files_can_be_read_at_a_glance() -> None:
    for path in sources("skyctl") + sources("skyagent"):
        text = path.read_text()
        assert text.count("\n") <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno <= 60, f"{path}: {node.name}"
