"""The key that signs the agent's releases: an administrator's, and nobody's who has only `serve` or the database."""

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import psycopg
import pytest

from skyagent import pinned
from skyctl import settings, wiring
from skyctl.host.release_key import ReleaseKey
from skyctl.operations.agents import invitations, release_keys, upgrades
from skyctl.operations.agents.registration import register
from skyctl.operations.shared.context import Context
from tests.conftest import SECRET, Cli, Process
from tests.support.helpers import LOAD, PATIENCE_SECONDS, TESTS, add_worker, admin_token, bearer, registration

pytestmark = pytest.mark.in_process

Serve = Callable[..., tuple[str, Process]]
OLDER = "0" * 64
PINS = "release_key={}"


def script_of(cli: Cli, *arguments: str) -> str:
    done = cli("workers", "install-script", *arguments, SKYCTL_API_URL="https://manager.example.com")
    assert done.returncode == 0, done.stderr
    return done.stdout


def published(connection: psycopg.Connection) -> str | None:
    row = connection.execute("SELECT release_key FROM skyctl_installation").fetchone()
    return row[0] if row else None


def test_the_key_is_for_whoever_made_it_alone(release_key: ReleaseKey) -> None:
    assert stat.S_IMODE(release_key.path.stat().st_mode) == 0o600
    assert b"PRIVATE KEY" in release_key.path.read_bytes()


def test_a_data_folder_of_the_services_user_does_not_hold_it(tmp_path: Path) -> None:
    """S, L: in a folder of its own that user could put another key in its place."""
    assert wiring.release_key_path(tmp_path) == tmp_path / "release.key"
    assert wiring.release_key_path(Path("/var/lib/skyctl")) == Path("/etc/skyctl/release.key")
    if os.geteuid() == 0:
        os.chown(tmp_path, 65534, 65534)
        assert wiring.release_key_path(tmp_path) == Path("/etc/skyctl/release.key")


def test_what_serve_works_with_has_no_key(environment: dict[str, str]) -> None:
    context = wiring.connect(settings.load(environment=environment), environment["SKYCTL_DATABASE_URL"])
    assert context.release_key is None
    context.db.close()


def test_serve_hands_on_what_an_administrator_has_signed_and_nothing_else(
    context: Context, cli: Cli, serve: Serve, connection: psycopg.Connection, release_key: ReleaseKey
) -> None:
    """S: who writes the offer into the database still lacks the signature."""
    invited = invitations.invite(context, TESTS, "w")
    said = {"agentSha256": OLDER, "releaseKey": release_key.public()}
    register(context, invited.token, registration(**said))
    url, _ = serve()
    beat = f"{url}/api/workers/{invited.worker_id}/heartbeat"

    def offered() -> dict[str, object] | None:
        answer = httpx.post(beat, json=LOAD, headers=bearer(invited.token), timeout=PATIENCE_SECONDS).json()
        found: dict[str, object] | None = answer.get("agent")
        return found

    connection.execute(
        "UPDATE container_workers SET agent_offered = %s, agent_offered_at = now()", (upgrades.release().sha256,)
    )
    assert offered() is None
    assert cli("workers", "upgrade", "w").returncode == 0
    offer = offered()
    assert offer
    release = pinned.Signed(
        str(offer["version"]), str(offer["sha256"]), len(upgrades.release().archive), str(offer["signature"])
    )
    pinned.check(release_key_bytes(release_key), release)
    connection.execute("UPDATE container_workers SET agent_signature = NULL")
    assert cli("db", "init").returncode == 0
    assert connection.execute("SELECT agent_offered FROM container_workers").fetchone() == (None,)


def release_key_bytes(key: ReleaseKey) -> bytes:
    """What a host has pinned, as its agent reads it."""
    file = key.path.with_name("pinned")
    file.write_text(key.public() + "\n")
    return pinned.key({pinned.KEY_FILE: str(file)})


def test_scripts_pin_the_key_and_the_first_one_makes_it(
    cli: Cli, connection: psycopg.Connection, environment: dict[str, str], serve: Serve
) -> None:
    key = ReleaseKey(Path(environment["SKYCTL_DATA_DIR"], "release.key"))
    assert not key.path.exists()
    assert published(connection) is None
    script = script_of(cli)
    assert PINS.format(key.public()) in script
    assert published(connection) == key.public()
    url, _ = serve()
    made = httpx.post(
        f"{url}/api/workers/generate-script",
        headers=bearer(admin_token(SECRET, connection)),
        json={"insecure": True},
        timeout=PATIENCE_SECONDS,
    ).json()
    assert PINS.format(key.public()) in made["data"]["script"]


def test_the_database_does_not_choose_what_an_administrators_script_pins(
    cli: Cli, connection: psycopg.Connection, release_key: ReleaseKey
) -> None:
    """S: it holds the database, and writes its own key there."""
    connection.execute("UPDATE skyctl_installation SET release_key = 'of-somebody-else'")
    assert PINS.format(release_key.public()) in script_of(cli)
    assert published(connection) == release_key.public()
    release_key.path.unlink()
    connection.execute("UPDATE skyctl_installation SET release_key = 'of-somebody-else'")
    done = cli("workers", "install-script", SKYCTL_API_URL="https://manager.example.com")
    assert PINS.format("''") in done.stdout
    assert "the key of releases is not here" in done.stderr


def test_without_the_key_nothing_is_signed_and_no_other_is_made(
    cli: Cli, connection: psycopg.Connection, release_key: ReleaseKey
) -> None:
    worker = {"agentSha256": OLDER, "releaseKey": release_key.public()}
    add_worker(connection, name="w", metadata=json.dumps(worker))
    script_of(cli)
    release_key.path.rename(release_key.path.with_name("elsewhere"))
    done = cli("workers", "upgrade", "w")
    assert done.returncode == 4
    assert str(release_key.path) in done.stderr
    assert not release_key.path.exists()
    assert connection.execute("SELECT agent_offered FROM container_workers WHERE name = 'w'").fetchone() == (None,)


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_named_with_a_remedy(cli: Cli, release_key: ReleaseKey, content: str) -> None:
    release_key.path.write_text(content)
    done = cli("workers", "upgrade", "--all")
    assert done.returncode == 4
    assert f"{release_key.path} holds no private Ed25519 key in PEM" in done.stderr
    assert "restore it from a backup" in done.stderr


def test_hosts_that_need_a_new_script_are_named(
    cli: Cli, connection: psycopg.Connection, release_key: ReleaseKey
) -> None:
    hosts: dict[str, dict[str, object]] = {
        "old": {},
        "other": {"releaseKey": "x"},
        "plain": {"plainHttp": True},
        "odd": {"releaseKey": ["x"]},
    }
    for name, said in hosts.items():
        add_worker(connection, name=name, metadata=json.dumps({"agentSha256": OLDER, **said}))
    done = cli("workers", "upgrade", "--all")
    assert done.returncode == 4
    assert sorted(done.stdout.splitlines()) == [
        f"odd: {upgrades.OTHER_KEY}",
        f"old: {upgrades.NO_KEY}",
        f"other: {upgrades.OTHER_KEY}",
        f"plain: {upgrades.PLAIN_HTTP}",
    ]
    assert all(upgrades.NEW_SCRIPT in line for line in done.stdout.splitlines())
    assert release_key.public() == published(connection)


def test_a_script_over_plain_http_is_warned_of(cli: Cli) -> None:
    asked = ("workers", "install-script", "--link", "--api-url", "http://manager.example.com")
    refused = cli(*asked)
    assert (refused.returncode, refused.stdout) == (4, "")
    done = cli(*asked, "--insecure")
    assert done.returncode == 0
    assert "warning: http://manager.example.com is plain HTTP" in done.stderr
    assert "warning" not in cli("workers", "install-script", "--api-url", "https://manager.example.com").stderr


def test_a_token_that_waits_is_not_told_to_an_agent_that_would_not_take_it(
    context: Context, cli: Cli, serve: Serve
) -> None:
    """N: it would pass the network in the clear for nothing; the present one stays good."""
    invited = invitations.invite(context, TESTS, "w")
    register(context, invited.token, registration(takesTokens=True))
    assert cli("workers", "rotate-token", "w").returncode == 0
    url, _ = serve()
    beat = f"{url}/api/workers/{invited.worker_id}/heartbeat"
    told = httpx.post(beat, json=LOAD, headers=bearer(invited.token), timeout=PATIENCE_SECONDS)
    assert "newToken" in told.json()
    register(context, invited.token, registration(plainHttp=True))
    told = httpx.post(beat, json=LOAD, headers=bearer(invited.token), timeout=PATIENCE_SECONDS)
    assert (told.status_code, "newToken" in told.json()) == (200, False)
    refused = cli("workers", "rotate-token", "w")
    assert (refused.returncode, "cannot take a new token" in refused.stderr) == (4, True)
    doctor = cli("doctor", "-o", "json")
    (check,) = (each for each in json.loads(doctor.stdout)["checks"] if each["name"] == "transport")
    assert (check["state"], "w (192.168.1.100)" in check["found"]) == ("warning", True)


def test_a_process_that_has_none_by_design_cannot_sign(context: Context) -> None:
    with pytest.raises(Exception, match="not for this process"):
        release_keys.signing(replace(context, release_key=None))
