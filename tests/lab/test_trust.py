"""A host that may be trusted: it joins over TLS of our own, gets a new token, a copy of its disk is named, it is
revoked."""

import json

from tests.support.helpers import eventually

from .console import Console
from .machines import Copy, Host
from .network import Network

UNIT = "skypanel-worker"
NAMED = {"hostname": "original"}


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

        console.ask("workers", "revoke", "web-1", "--yes", "--reason", "sold")
        eventually(lambda: "TOKEN_REVOKED" in holder.run("journalctl", "--unit", UNIT))
        before = console.heard()
        assert " revoked" in console.ask("workers", "list")
        assert console.heard() == before
