"""The embedded server's settings: by the memory and the disk that it finds, and never so that it does not start."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from skyctl.host import postgres_tuning
from skyctl.host.postgres import EmbeddedPostgres
from tests.conftest import clean_environment

MIB, GIB = 1 << 20, 1 << 30
NAMES = list(postgres_tuning.settings(GIB, GIB))


@pytest.fixture
def server(open_folder: Path) -> Iterator[EmbeddedPostgres]:
    made = EmbeddedPostgres(open_folder / uuid4().hex[:8])
    yield made
    made.stop()


def sources(url: str) -> dict[str, str]:
    """Where the server has each of the settings from."""
    with psycopg.connect(url) as connection:
        return dict(connection.execute("SELECT name, source FROM pg_settings WHERE name = ANY(%s)", [NAMES]).fetchall())


@pytest.mark.parametrize(
    ("memory", "free", "buffers", "cache", "most_wal", "least_wal"),
    [
        (256 * MIB, GIB, "128MB", "128MB", "256MB", "32MB"),
        (4 * GIB, 20 * GIB, "512MB", "2048MB", "1024MB", "128MB"),
        (256 * GIB, 2000 * GIB, "1024MB", "131072MB", "4096MB", "512MB"),
        (0, 0, "128MB", "128MB", "256MB", "32MB"),
    ],
)
def test_they_are_a_guests_part(
    memory: int, free: int, buffers: str, cache: str, most_wal: str, least_wal: str
) -> None:
    found = postgres_tuning.settings(memory, free)
    sized = ("shared_buffers", "effective_cache_size", "max_wal_size", "min_wal_size")
    assert tuple(found[name] for name in sized) == (buffers, cache, most_wal, least_wal)


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": f"{64 * MIB}\n"}, 64 * MIB),
        ("0::/\n", {"memory.max": f"{32 * MIB}\n"}, 32 * MIB),
        ("5:cpu:/c\n4:memory:/c\n0::/\n", {"memory/c/memory.limit_in_bytes": f"{48 * MIB}\n"}, 48 * MIB),
        ("0::/a\n", {}, None),
    ],
    ids=["above", "own", "first version", "none"],
)
def test_memory_is_what_the_groups_allow(tmp_path: Path, own: str, files: dict[str, str], limit: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(own)
    found = postgres_tuning.memory(tmp_path, tmp_path / "own")
    assert found == limit if limit else found > GIB // 4


def test_a_server_takes_them_but_for_what_its_owner_has_set(server: EmbeddedPostgres) -> None:
    with server.running() as url:
        assert set(sources(url).values()) == {"command line"}
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET max_wal_size = '300MB'")
    with server.running() as url:
        assert sources(url) == dict.fromkeys(NAMES, "command line") | {"max_wal_size": "configuration file"}


@pytest.mark.skipif(postgres_tuning.memory() < 4 * GIB, reason="there it takes little more than PostgreSQL by itself")
def test_a_server_starts_where_it_gets_less_memory_than_it_seems(server: EmbeddedPostgres) -> None:
    limit = postgres_tuning.memory() // 8
    command = ["prlimit", f"--as={min(limit, GIB)}", sys.executable, "-m", "skyctl", "db", "init"]
    made = subprocess.run(
        command, env=clean_environment() | {"SKYCTL_DATA_DIR": str(server.data_dir)}, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert "action=database_not_tuned" in made.stderr
