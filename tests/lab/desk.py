"""A second host, with the wheel alone, does by a context what the README shows: docs/desk.md.

With UPDATE_DOCUMENTS=1 the document is written anew from what the commands printed.
"""

import json
import re
import subprocess
from dataclasses import dataclass

from tests.support.helpers import PATIENCE_SECONDS, eventually

from . import images
from .commands import CommandFailed
from .machines import Host
from .manager_host import INSTALL_SECONDS, ROOT, ManagerHost
from .recorder import Recorder

DOCUMENT = ROOT / "docs/desk.md"
SMALL = ("--cpu", "0.2", "--memory", "16M", "--disk", "0.001", "--endpoint-mode", "dnsrr")
INTRODUCTION = """# From another machine

All that an administrator does, from a machine that has Python and the wheel of skyctl, and neither Docker nor a
database: by a token, over HTTPS, with an authority of the manager's own. `tests/lab/test_manager_host.py` recorded it
on two booted Debian hosts with systemd: on `head` the services run as [operations.md](operations.md) says, `desk` has
nothing but the wheel. Ids, addresses and times are as they were. Both shared the processors of one machine, so the
database took those of the worker for idle.
"""


@dataclass
class Desk:
    """The command line of that host."""

    host: Host

    def __call__(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command = self.host.command("sh", "-c", 'cd /root; exec skyctl "$@"', "sh", *words)
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )


def everything_by_a_context(manager: ManagerHost, elsewhere: Host) -> None:
    """Log in, let a host join, look at everything, change what can be changed, and leave all as it was."""
    for absent in ("docker", "postgres", "psql"):
        assert not elsewhere.run("sh", "-c", f"command -v {absent} || true")
    desk = Desk(elsewhere)
    record = Recorder(DOCUMENT, INTRODUCTION, desk, {})
    _log_in(record, manager, elsewhere)
    _let_a_host_join(record, manager, desk, elsewhere)
    _look_at_it(record, elsewhere)
    _change_it(record)
    record.say("## And leave")
    record.skyctl("tokens", "list")
    record.skyctl("logout")
    record.check_document()
    manager.host.run("skypanel-worker-uninstall", timeout_seconds=INSTALL_SECONDS)


def _log_in(record: Recorder, manager: ManagerHost, elsewhere: Host) -> None:
    record.say("## A token\n\nOn the manager, by root, whom `serve` knows by its unix socket:")
    for command in ("skyctl tokens create anna --role admin --ttl 30d --file anna.token", "skyctl tls show"):
        told = manager.host.run("sh", "-c", f"cd /root; {command} 2>&1")
        record.keep(command, told)
    fingerprint = re.search(r"[0-9A-F]{2}(?::[0-9A-F]{2}){31}", told)
    assert fingerprint
    elsewhere.run("sh", "-c", "umask 077; cat >/root/anna.token", stdin=manager.host.run("cat", "/root/anna.token"))
    record.say("On the desk, to which `anna.token` was copied:")
    where = (manager.url, "--name", "prod", "--token-file", "anna.token")
    record.skyctl("login", *where, "--fingerprint", fingerprint[0])
    for words in (("version",), ("context", "list"), ("workers", "list")):
        record.skyctl(*words)


def _let_a_host_join(record: Recorder, manager: ManagerHost, desk: Desk, elsewhere: Host) -> None:
    record.say("## A worker\n\nThe host of the manager is to be one itself:")
    record.skyctl("workers", "install-script", "--name", "web-1", "--file", "web-1.sh")
    script = elsewhere.run("cat", "/root/web-1.sh")
    told = manager.host.run("sh", "-c", "sh 2>&1", stdin=script, timeout_seconds=2 * INSTALL_SECONDS)
    record.keep("ssh root@head sh <web-1.sh", told)
    eventually(lambda: _worker(desk)["swarmNodeClaim"])
    record.skyctl("workers", "confirm", "web-1", "--yes")  # a manager's node is nobody's without that
    eventually(lambda: _worker(desk)["status"] == "active" and _worker(desk)["swarmNodeConfirmedAt"])


def _look_at_it(record: Recorder, elsewhere: Host) -> None:
    record.say("## What there is")
    for words in (
        *(("workers", "list"), ("workers", "show", "web-1"), ("workers", "why", "web-1"), ("cluster", "stats")),
        *(("events",), ("alerts", "list")),
    ):
        record.skyctl(*words)
    record.skyctl("doctor", tolerates=1)
    record.say("`skyctl cluster top` fills the screen as it does on the manager.")
    try:
        elsewhere.run("script", "-qec", "stty cols 100 rows 30; skyctl cluster top", "/dev/null", stdin="q")
    except CommandFailed as error:
        raise AssertionError(str(error)) from error


def _change_it(record: Recorder) -> None:
    record.say("## What changes it\n\nThe image was loaded into the engine before, since no registry is near.")
    record.skyctl("services", "deploy", "shop", "--image", images.WEB, *SMALL, "--wait", tolerates=4)
    for look in ("list", "show shop", "adopt"):
        record.skyctl("services", *look.split())
    record.say("There is no other worker yet, so a drain would leave it where it is, with exit code 4:")
    record.skyctl("workers", "drain", "web-1", "--plan", ends=4)
    for words in (
        *(("workers", "drain", "web-1", "--reason", "new disk"), ("workers", "undrain", "web-1")),
        *(("migrations", "list"), ("policy", "set", "default", "manual")),
        *(("tokens", "create", "ci", "--role", "viewer", "--file", "ci.token"), ("tokens", "revoke", "ci", "--yes")),
        ("services", "remove", "shop", "--yes"),
    ):
        record.skyctl(*words)
    record.skyctl("workers", "remove", "web-1", "--drain", "--yes", tolerates=4)


def _worker(desk: Desk) -> dict[str, object]:
    shown: dict[str, object] = json.loads(desk("workers", "show", "web-1", "-o", "json").stdout)
    return shown
