"""The agent as a citizen of its host: under its own hardened unit, back after whatever ends it, upgraded and gone back."""

from collections.abc import Iterator

import pytest

from skyctl.installer import InstallScript, render

from .machines import Host
from .network import Network
from .peer import Peer

UNIT = "skypanel-worker"
TOKEN = "token-of-the-citizen"
WORKER_ID = "6f1d1f0e-3d0c-4d44-9a53-2f2b7c0f6a10"


@pytest.fixture(scope="module")
def api(lab: Network) -> Iterator[Peer]:
    with Peer(lab.gateway) as peer:
        yield peer


@pytest.fixture(scope="module")
def host(lab: Network, api: Peer) -> Iterator[Host]:
    """A host with Docker on which the install script has run."""
    with Host(lab, "citizen", fresh=False) as host:
        script = render(InstallScript(WORKER_ID, TOKEN, api.url, 1, insecure=True, join=None))
        print(host.run("sh", "-c", "sh 2>&1", stdin=script, timeout_seconds=300))
        yield host


def test_look(host: Host, api: Peer) -> None:
    print(
        host.run(
            "sh",
            "-c",
            "systemctl status --no-pager skypanel-worker; journalctl -u skypanel-worker --no-pager | tail -20; systemd-analyze security --no-pager skypanel-worker | tail -1; ls -lad /etc/skypanel-worker /etc/skypanel-worker/* /var/lib/skypanel-worker /run/skypanel-worker/* /usr/local/bin/skyagent; ps axo user,group,rss,args | grep skyagent; skyagent status; skyagent status -o json; grep -i 'groups\\|rss' /proc/$(systemctl show -p MainPID --value skypanel-worker)/status || true",
        )
    )
    print(api.wait_for(lambda told: told.registers))
    print(api.wait_for(lambda told: not told.registers))
    assert 0
