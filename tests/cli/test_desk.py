"""Every command by either way: in a process with the database, and by the API of a manager, with a token alone."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from difflib import unified_diff
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from skyctl.cli.app import program
from skyctl.domain.api_tokens import Role
from skyctl.domain.engine import SwarmJoin
from skyctl.host.release_key import ReleaseKey
from skyctl.operations.admin import api_tokens
from skyctl.store import swarm
from tests.conftest import SECRET, TEMPLATE, Process, clean_environment, make_context, without_our_settings
from tests.host.test_no_database import commands
from tests.support.answering import answering
from tests.support.fake_placed import replicated
from tests.support.fakes import FakeEngine
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS
from tests.support.in_process import InProcess

SESSION = """
workers list
workers list -o wide
workers list -o json
workers list --status offline,active --sort-by memory -o name
workers list --limit 1
workers list --after w1
workers list --search nobody
workers list --status asleep
workers show w1
workers show w1 -o json
workers show nobody
workers why w1
workers why w1 -o json
workers label w1 --region eu --pool web
workers label w1 --region=
workers list --region eu
cluster stats
cluster stats -o json
cluster top -o json
services deploy shop --image shop:1 --cpu 500m --env KEY=value --label team=x --dry-run -o json
services deploy shop --image shop:1 --cpu 500m --env KEY=value --label team=x
SETTLE
services deploy shop --env OTHER=value --memory 256M
SETTLE
services deploy shop --replicas 0
services deploy nothing
services deploy shop --org nobody
services deploy -f FILE
SETTLE
services deploy shop --image shop:2 --wait --timeout 1s
SETTLE
services list
services list -o json
services list --all
services list --status running --worker w1 -o name
services show shop
services show shop -o json
services show web
services show nobody
services why shop
services why shop -o json
services why nobody
services scale shop=2
SETTLE
services scale shop=1 web=1 nobody=3
SETTLE
services restart web
services rollback shop --yes
SETTLE
services rollback web --yes
services logs web --tail 5
services logs nobody
services adopt
services adopt --all --yes
services adopt nobody
SETTLE
services release web --yes
services adopt web --yes --cpu 1 -o json
services remove web --dry-run
services remove web --yes
services remove web
policy get
policy get org -o json
policy set org manual
policy get nobody
policy set org automatic
workers drain w1 --plan
workers drain w1 --plan -o json
workers drain w1 --dry-run
workers drain w1 --force
workers drain w1 --deadline soon
workers drain w1 --reason repair --deadline 2h --max-parallel 2 --keep-global
migrations list
migrations list -o json
migrations pause --for 2h --reason night
migrations list
migrations resume --yes
migrations resume
workers undrain w1 --dry-run
workers undrain w1
workers undrain w1
workers drain w1 -o json
SETTLE
workers drain w1 --wait --timeout 1s
workers show w1
FAIL w2
migrations list -o json
migrations show shop
migrations show shop -o json
migrations show nobody
migrations approve --all
migrations approve shop
migrations reject shop
migrations cancel shop
migrations retry shop
SETTLE
workers undrain w1 w2
workers cordon w1 w3 --reason "looks odd"
workers uncordon w2
workers uncordon w1
workers uncordon w3
alerts silence w1 --for 2h --reason works
alerts list
alerts list -o json
alerts unsilence w1
alerts unsilence w1
alerts silence w1
alerts test
alerts test -o json
events -n 5
events --since 0 -o json
events --since 3
events --since 1h --worker w1 --kind cordoned
events --worker nobody
events --kind nonsense
workers rotate-token w1
workers rotate-token nobody
workers confirm w1 --yes
workers upgrade --all --dry-run
workers upgrade w1 -o json
workers install-script --name new
workers install-script --name new
workers install-script --worker w3 -o json
workers install-script --name other --link
workers install-script --worker nobody
workers revoke w3 --reason stolen --yes
workers remove w2 --dry-run
workers remove w3
workers remove w3 --yes
workers remove new --yes
tokens create ci --role operator --ttl 90d
tokens create ci --role operator
tokens create other -o json
tokens list
tokens list --all -o json
tokens revoke ci --yes
tokens revoke ci --yes
secrets end-admin-tokens --yes
""".strip().splitlines()
FOLLOWED = {"alerts follow"}  # until it is stopped: below
NO_OPERATION = {"help", "version", "login", "logout"}
ON_THE_HOST = {
    "up",
    "serve",
    "monitor",
    "doctor",
    "db init",
    "db check",
    "tls init",
    "tls show",
    "systemd install",
    "workers bundle",
    "secrets rotate",
}
"""What is done with the files, the services and the network of the manager's own host."""

FILE = "name: api\nimage: api:1\n---\nname: job\nimage: job:1\nregion: mars\n"
JOIN = SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc")
AN_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
OTHERS = (
    (re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+(?:Z|[+-][0-9:]+| UTC)?"), "TIME"),
    (re.compile(r"\b[0-9]+m ago|\b[0-9.]+(?:ms| ms|s| s| seconds?)\b(?: ago)?|\bjust now\b|\bnow\b"), "AGE"),
    (re.compile(r'("silenceSeconds": )[0-9.]+'), r"\1AGE"),
    (re.compile(r"\b(?:cli:\w+|token:desk)\b"), "WHO"),
    (re.compile(r"\bskyctl_[\w-]+|\bey[\w-]+\.[\w-]+\.[\w-]+|(?<=/install/)[\w-]{20,}"), "SECRET"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "SHA256"),
    (re.compile(r"\b[0-9a-f]{8}\b"), "SHORT"),
    (re.compile(r'(\bterm"?:? )[0-9]+'), r"\1N"),  # as many steps as it takes until all is quiet
    (re.compile(r'("lastUsed(?:At|From)": ).*'), r"\1USED"),
    (re.compile(r"(?<=tests)\s+(?:never|AGE from 127\.0\.0\.1)"), " USED"),
    (re.compile(r"there \(http://127\.0\.0\.1:[0-9]+\): "), ""),  # where a question is asked
)


@dataclass
class World:
    """A cluster of its own, and the command line by one of the ways to it."""

    fleet: Fleet
    run: InProcess
    folder: Path
    known: dict[str, str] = field(default_factory=dict)

    def close(self) -> None:
        """Leave its database."""
        self.fleet.connection.close()
        self.fleet.context.db.close()

    def transcript(self) -> list[str]:
        """What each line of the session gives, line by line."""
        file = self.folder / "services.yaml"
        file.write_text(FILE)
        return [text for line in SESSION for text in self._typed(line.replace("FILE", str(file)))]

    def _typed(self, line: str) -> list[str]:
        if line == "SETTLE":
            self.fleet.engine.settle()
            self.fleet.settle()
            return [line]
        if line.startswith("FAIL"):
            self.fleet.fail(line.split()[1])
            return [line]
        done = self.run(*shlex.split(line))
        outcome = f"exit code {done.returncode}"
        return [
            f"$ {self._plain(line)}",
            *self._plain(done.stdout).splitlines(),
            *self._plain(done.stderr).splitlines(),
            outcome,
        ]

    def _plain(self, text: str) -> str:
        """The text without what differs from one world to another."""
        text = text.replace(str(self.folder), "FOLDER")
        for found in AN_ID.findall(text):
            self.known.setdefault(found, f"ID{len(self.known)}")
        for found, name in self.known.items():
            text = text.replace(found, name).replace(found[:8], f"{name}...")
        for pattern, name in OTHERS:
            text = pattern.sub(name, text)
        return "\n".join(re.sub(r"[ ─━]+", " ", line).strip() for line in text.splitlines())


@pytest.fixture
def worlds(
    make_database: Callable[[str], str],
    serve: Callable[..., tuple[str, Process]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[World, World]]:
    """The same cluster twice: one reached by its database, the other by its API."""
    without_our_settings(monkeypatch)
    ids: dict[str, UUID] = {}
    pattern = make_database(TEMPLATE)
    _world(pattern, tmp_path / "pattern", ids).close()  # a copy is made of what nobody uses
    copied = conninfo_to_dict(pattern)["dbname"]
    for way in ("database", "context"):
        shutil.copytree(tmp_path / "pattern/data", tmp_path / way / "data")
    with_database, by_api = (_world(make_database(str(copied)), tmp_path / way, ids) for way in ("database", "context"))
    settings = by_api.run.environment
    by_api.run = InProcess({"XDG_CONFIG_HOME": settings["XDG_CONFIG_HOME"], "SKYCTL_DATA_DIR": str(tmp_path / "none")})
    with_database.run.engine = with_database.fleet.engine
    token = api_tokens.create(by_api.fleet.context, TESTS, "desk", Role.ADMIN, None)[1]
    api_tokens.create(with_database.fleet.context, TESTS, "desk", Role.ADMIN, None)
    (by_api.folder / "token").write_text(token)
    engine, url = by_api.fleet.engine, serve(**settings)[0]
    logged_in = by_api.run("login", url, "--token-file", str(by_api.folder / "token"), "--name", "there")
    assert logged_in.returncode == 0, logged_in.stderr
    with answering(replace(by_api.fleet.context, engine=lambda: engine)):
        yield with_database, by_api
    with_database.close()
    by_api.close()


def _world(url: str, folder: Path, ids: dict[str, UUID]) -> World:
    """A world of three workers: of the `ids`, where these are in the database already; else they are added."""
    key = ReleaseKey(folder / "data/release.key")
    engine = FakeEngine(JOIN)
    context = make_context(url, engine=engine, release_key=key)
    fleet = Fleet(context, psycopg.connect(url, autocommit=True), engine)
    if ids:
        fleet.ids, fleet.nodes = dict(ids), {name: engine.add_node(name) for name in ids}
    else:
        key.make()
        fleet.add("w1", "w2", "w3")
        ids |= fleet.ids
        with context.db.transaction() as tx:
            swarm.note_join(tx, JOIN)  # as a monitor does
    engine.place(replicated("web"))
    engine.settle()
    settings = {
        "SKYCTL_DATABASE_URL": url,
        "SKYCTL_JWT_SECRET": SECRET,
        "SKYCTL_DATA_DIR": str(folder / "data"),
        "SKYCTL_API_URL": "https://manager.example.com",
        "XDG_CONFIG_HOME": str(folder / "config"),
    }
    return World(fleet, InProcess(settings), folder)


def test_each_way_gives_the_same(worlds: tuple[World, World]) -> None:
    expected, found = (world.transcript() for world in worlds)
    assert "\n".join(unified_diff(expected, found, "by the database", "by the API", n=6, lineterm="")) == ""


def test_a_command_that_asks_a_manager_loads_no_database_and_no_engine(worlds: tuple[World, World]) -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write(' '.join(sys.modules)))\n"
        "sys.argv = ['skyctl', 'workers', 'list']\nfrom skyctl.__main__ import main\nmain()\n"
    )
    environment = clean_environment() | worlds[1].run.environment
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "3 workers" in done.stdout
    loaded = set(done.stderr.split())
    assert {"http.client", "skyctl.host.api_client"} <= loaded
    assert not {"sqlalchemy", "psycopg", "docker", "httpx", "jwt", "cryptography"} & loaded
    assert not {name for name in loaded if name.startswith(("skyctl.store", "skyctl.api", "skyctl.cli.drains"))}


def test_every_command_is_tried_by_both() -> None:
    names = {name for name, _ in commands(program()) if not name.startswith("context ")}
    tried = {" ".join(line.split()[:2]) for line in SESSION} | {line.split()[0] for line in SESSION}
    assert names - tried == FOLLOWED | NO_OPERATION | ON_THE_HOST
