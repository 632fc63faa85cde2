"""A host that may be trusted: it joins over TLS of our own, gets a new token, a copy of its disk is named, it is
revoked."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest

from tests.conftest import Cli, Process
from tests.support.helpers import eventually

from .machines import Copy, Host
from .network import Network

UNIT = "skypanel-worker"
NAMED = {"hostname": "original"}


@pytest.fixture
def host(lab: Network) -> Iterator[Host]:
    with Host(lab, "original", fresh=False) as host:
        yield host


@dataclass
class Console:
    """The manager as people use it, and its database."""

    cli: Cli
    connection: psycopg.Connection

    def ask(self, *command: str) -> str:
        done = self.cli(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def heard(self) -> object:
        return self.connection.execute("SELECT last_heartbeat_at FROM container_workers").fetchall()

    def hears(self) -> None:
        """Wait for two heartbeats."""
        for _ in range(2):
            before = self.heard()
            eventually(lambda before=before: self.heard() != before)  # type: ignore[misc]

    def event(self, kind: str) -> dict[str, object]:
        """The details of an event, once it has come to pass."""
        query = "SELECT details FROM worker_events WHERE kind = %s"
        row = eventually(lambda: self.connection.execute(query, (kind,)).fetchone())
        assert row
        details: dict[str, object] = row[0]
        return details


@pytest.fixture
def console(
    lab: Network, cli: Cli, start: Callable[..., Process], connection: psycopg.Connection, environment: dict[str, str]
) -> Console:
    """It serves at the lab's gateway, over TLS of its own. A host that is silent for two heartbeats may have been
    rebooted: so long no machine keeps one waiting that is merely busy."""
    environment["WORKER_HEARTBEAT_INTERVAL"] = "15"
    done = cli("tls", "init", "--host", lab.gateway)
    assert done.returncode == 0, done.stderr
    serving = start("serve", "--host", lab.gateway, "--port", "0")
    environment["SKYCTL_API_URL"] = serving.until("listening on ").split("listening on ")[1].strip()
    assert environment["SKYCTL_API_URL"].startswith("https://")
    return Console(cli, connection)


def test_a_host_can_be_trusted_until_it_is_revoked(lab: Network, host: Host, console: Console) -> None:
    script = console.ask("workers", "install-script", "--name", "web-1")
    host.run("sh", "-c", "sh 2>&1", stdin=script, timeout_seconds=300)
    console.hears()

    console.ask("workers", "rotate-token", "web-1")
    console.event("token_rotated")
    console.hears()
    kept = host.run("stat", "--format", "%a %U", "/var/lib/skypanel-worker/token.json")
    assert kept.strip() == "600 skyagent"

    with Copy(lab, "copy", host) as copy:
        assert copy.run("cat", "/etc/machine-id") == host.run("cat", "/etc/machine-id")
        told = console.event("cloned")
        # where the machine was too busy for the original to be heard when the copy came, the copy took its place
        clone, holder = sorted((host, copy), key=lambda each: {"ipAddress": each.address, **NAMED} == told["holder"])
        assert told == {
            "holder": {"ipAddress": holder.address, **NAMED},
            "clone": {"ipAddress": clone.address, **NAMED},
        }
        console.hears()
        eventually(lambda: "WORKER_CLONED" in clone.run("journalctl", "--unit", UNIT))
        assert json.loads(console.ask("workers", "show", "web-1", "-o", "json"))["ipAddress"] == holder.address

        console.ask("workers", "revoke", "web-1", "--reason", "sold")
        eventually(lambda: "TOKEN_REVOKED" in holder.run("journalctl", "--unit", UNIT))
        before = console.heard()
        assert " revoked" in console.ask("workers", "list")
        assert console.heard() == before
