"""Commands that people copy out of what skyctl prints: whatever a row of the panel holds, nothing of it is run."""

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from skyctl.domain.text import CONTROL, quoted
from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context
from tests.conftest import Cli, Process
from tests.support.fleet import Fleet
from tests.support.helpers import PATIENCE_SECONDS, REGISTRATION, TESTS, add_worker, bearer, get

pytestmark = pytest.mark.in_process

ROOT = Path(__file__).parents[2]
HOSTILE = ["$(touch run-1)", "'; touch run-2; '\"`touch run-3`\"", "--force", "a\ntouch run-4\n\u202e\x1b[2J"]
COMMAND = re.compile(r"\bskyctl (?:workers|services|migrations) [^\n`]*|(?<=`)(?:docker|chmod) [^\n`]*")
WORD = re.compile(r"[A-Za-z0-9._-]+[,;]?")


def assert_harmless(shown: str, command: str) -> None:
    """The command is shown, and every command that is shown is plain words, up to the end of its clause."""
    assert re.search(re.escape(command) + r"(?![\w$'\"-])", shown)
    assert not CONTROL.search(shown.replace("\n", ""))
    for found in COMMAND.findall(shown):
        for word in found.split():
            assert WORD.fullmatch(word), found
            if word[-1] in ",;":
                break


@pytest.fixture(params=HOSTILE, ids=ascii)
def hostile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_hints_about_workers_name_their_ids(cli: Cli, connection: psycopg.Connection, hostile: str) -> None:
    worker = add_worker(
        connection, name=hostile, hostname=hostile, status="active", swarm_node_id=hostile, swarm_node_confirmed=hostile
    )
    anew = f"skyctl workers install-script --worker {worker}"
    for arguments, command in (
        (["workers", "rotate-token", str(worker)], anew),
        (["workers", "revoke", str(worker), "--yes"], anew),
        (["workers", "revoke", str(worker), "--yes"], anew),
        (["workers", "why", str(worker)], anew),
    ):
        done = cli(*arguments)
        assert_harmless(done.stdout + done.stderr, command)
    away = cli("workers", "remove", str(worker), "--yes", DOCKER_HOST="unix:///nowhere/docker.sock")
    by_hand = f"`docker node rm {quoted(hostile)}`"
    assert by_hand in away.stderr
    assert shlex.split(by_hand[1:-1])[3] == CONTROL.sub(lambda found: ascii(found[0])[1:-1], hostile)


def test_the_doctor_names_ids(cli: Cli, connection: psycopg.Connection, hostile: str) -> None:
    worker = add_worker(connection, name=hostile, status="offline")
    checks = json.loads(cli("doctor", "-o", "json").stdout)["checks"]
    (remedy,) = (check["remedy"] for check in checks if check["name"] == "workers offline")
    assert_harmless(remedy, f"skyctl workers why {worker}")


def test_drains_name_ids(cli: Cli, trio: Fleet, hostile: str) -> None:
    trio.deploy("web", to="w1")
    trio.connection.execute("UPDATE container_workers SET name = %s WHERE name = 'w1'", (hostile,))
    worker = trio.ids["w1"]
    asked = cli("workers", "drain", str(worker))
    assert_harmless(asked.stderr, f"`skyctl workers drain {worker} --wait`")
    waited = cli("workers", "drain", str(worker), "--wait", "--timeout", "1s")
    assert waited.returncode == 6
    assert_harmless(
        waited.stderr, f"`skyctl workers drain {worker} --wait`, cancel it with `skyctl workers undrain {worker}`"
    )


def test_what_the_api_refuses_names_ids(
    serve: Callable[..., tuple[str, Process]], cli: Cli, context: Context, connection: psycopg.Connection, hostile: str
) -> None:
    url = serve()[0]
    invitation = invitations.invite(context, TESTS)
    said = REGISTRATION | {"metadata": {"machineId": "1" * 64}}
    made = cli(
        "workers", "install-script", "--worker", str(invitation.worker_id), "--link", "--insecure", SKYCTL_API_URL=url
    )
    link = re.search(r"https?://\S+/install/[\w-]+", made.stdout)
    assert link
    with httpx.Client(base_url=url, headers=bearer(invitation.token), timeout=PATIENCE_SECONDS) as client:
        connection.execute("UPDATE install_links SET expires_at = now() - interval '1 s'")
        connection.execute("UPDATE container_workers SET name = %s", (hostile,))
        script = get(link[0]).text
        assert client.post("/api/workers/register", json=said).status_code == 201
        connection.execute("UPDATE container_workers SET name = %s, hostname = %s", (hostile, hostile))
        other = said | {"metadata": {"machineId": "2" * 64}}
        refused = client.post("/api/workers/register", json=other)
    assert refused.json()["error"]["code"] == "TOKEN_IN_USE"
    again = f"skyctl workers install-script --worker {invitation.worker_id}"
    assert again in refused.text
    assert refused.text.isascii()
    said_by_script = subprocess.run(["sh"], input=script, capture_output=True, text=True).stderr
    assert_harmless(said_by_script, f"{again} --link")


def test_the_engines_address_is_quoted(cli: Cli) -> None:
    address = "unix:///nowhere/$(touch run)`;x.sock"
    done = cli("services", "adopt", DOCKER_HOST=address)
    assert f"`docker --host {quoted(address)} info`" in done.stderr


def test_one_quoted_word_is_one_word() -> None:
    for text in (*HOSTILE, "", "a'b", "\\", "!!", "a\u2028b", str(uuid4())):
        (word,) = shlex.split(quoted(text))
        assert not CONTROL.search(quoted(text))
        assert word == CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
    assert UUID(shlex.split(quoted(uuid4()))[0])


SAFE = {"reference", "quoted", "_typed"}
GROUPS = "workers|services|migrations|policy|alerts|events|tls|db"
BEGINS = re.compile(
    rf"(?:^|[`\s])(?:skyctl (?:{GROUPS}) [a-z-]+ |docker |chmod |journalctl )(?:(?!`|[.,;:] ).)*$", re.DOTALL
)


def placeholders_of_commands(path: Path) -> Iterator[tuple[int, str]]:
    """Each value that an f-string of a file puts into a command, with its line, unless it is an id or quoted."""
    for scope in ast.walk(ast.parse(path.read_text())):
        if isinstance(scope, ast.FunctionDef):
            made = {
                target.id
                for node in ast.walk(scope)
                if isinstance(node, ast.Assign)
                for target, value in _pairs(node)
                if isinstance(value, ast.Call) and ast.unparse(value.func) in SAFE
            }
            for string in ast.walk(scope):
                if isinstance(string, ast.JoinedStr):
                    yield from _unsafe(string, made)


def _pairs(node: ast.Assign) -> Iterator[tuple[ast.Name, ast.expr]]:
    target = node.targets[0]
    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
        pairs = zip(target.elts, node.value.elts, strict=True)
    else:
        pairs = zip([target], [node.value], strict=True)
    yield from ((name, value) for name, value in pairs if isinstance(name, ast.Name))


def _unsafe(string: ast.JoinedStr, made: set[str]) -> Iterator[tuple[int, str]]:
    before = ""
    for part in string.values:
        if isinstance(part, ast.FormattedValue):
            value = ast.unparse(part.value)
            is_safe = value in made or value.partition("(")[0] in SAFE or re.search(r"\bid\b|worker_id", value)
            if BEGINS.search(before) and not is_safe:
                yield string.lineno, value
            before += "{}"
        elif isinstance(part, ast.Constant):
            before += str(part.value)


# Constants of the program: nobody else's text.
OURS = {("units/__init__.py", "name"), ("operations/shared/lookup.py", "noun")}


def test_every_command_in_the_code_takes_ids_or_quotes() -> None:
    folder = ROOT / "skyctl"
    found = {
        (str(path.relative_to(folder)), value)
        for path in folder.rglob("*.py")
        for _, value in placeholders_of_commands(path)
    }
    assert found - OURS == set()


@pytest.mark.parametrize(
    "code", ["f'see `skyctl workers why {name}`'", "f'{x}: skyctl workers revoke --yes {printable(n)}'"]
)
def test_it_would_notice(tmp_path: Path, code: str) -> None:
    (tmp_path / "file.py").write_text(f"def hint():\n    return {code}\n")
    assert len(list(placeholders_of_commands(tmp_path / "file.py"))) == 1
