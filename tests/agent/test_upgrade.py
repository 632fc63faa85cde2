"""The agent takes a newer one over, and goes back to the old one whatever is wrong with it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping

import pytest

from skyagent import __version__
from skyctl.installer import agent_archive
from tests.agent.conftest import MakeUnit
from tests.agent.peers import DROP, HANG, Answer, Manager, Request, failing
from tests.agent.process import Agent
from tests.agent.unit import archive_of, linked, newer
from tests.support.helpers import eventually

HANGS = "import time\ndef main():\n    time.sleep(10_000)\n"
BUSY = "def main():\n    while True:\n        pass\n"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a full disk of its own")


def go_on(manager: Manager) -> None:
    """Wait for two more heartbeats."""
    beaten = len([request for request in manager.requests.all() if request.path.endswith("/heartbeat")])
    manager.heartbeats(beaten + 2)


def test_a_newer_agent_is_taken_over_and_stays(make_unit: MakeUnit, manager: Manager) -> None:
    unit = make_unit()
    unit.start()
    manager.heartbeats(1)
    sha256 = manager.offer(newer())
    told = manager.registration_with(agentVersion="9.9.9", agentSha256=sha256)
    assert "agentUpgradeFailed" not in told.body["metadata"]
    assert [request.headers["Authorization"] for request in manager.fetches()] == [told.headers["Authorization"]]
    assert (unit.releases()["taken"], unit.releases()["trial"]) == (sha256, None)
    unit.kill()
    go_on(manager)
    assert json.loads(unit.status("-o", "json").stdout)["agentSha256"] == sha256
    assert len(manager.fetches()) == 1
    manager.offer(newer(__main__="1 / 0\n"), offered_at="later")
    assert "it ended 3 times" in manager.failure("later")["reason"]
    assert unit.releases()["taken"] == sha256


def test_it_is_not_told_to_be_there_before_a_heartbeat_of_it_was_accepted(
    make_unit: MakeUnit, manager: Manager
) -> None:
    unit = make_unit()
    unit.start()
    manager.heartbeats(1)
    sha256 = manager.offer(newer())
    manager.registration_with(agentSha256=sha256)
    requests = manager.requests.all()
    registered = [n for n, each in enumerate(requests) if each.body and "metadata" in each.body]
    first, second = (n for n in registered if requests[n].body["metadata"]["agentVersion"] == "9.9.9")
    assert "agentSha256" not in requests[first].body["metadata"]
    assert [each for each in requests[first:second] if each.path.endswith("/heartbeat")]


BROKEN = {
    "no archive": (b"no archive at all", "it is no archive"),
    "cut off": (newer()[:-400], "it is no archive"),
    "no agent": (archive_of({"skyagent/agent.py": b""}), "its archive holds no agent"),
    "a dot": (archive_of({"skyagent/__main__.py": b"", ".": b""}), "its archive holds no agent"),
    "too large": (archive_of({"skyagent/__main__.py": b"", "skyagent/x.py": bytes(2**24 + 1)}), "more than an agent"),
    "damaged": (newer()[:40] + bytes(200) + newer()[240:], "it is no archive"),
    "a link": (linked("skyagent/__main__.py", "nowhere"), "its archive holds no agent"),
    "elsewhere": (
        archive_of({"skyagent/__main__.py": b"", "skyagent/../../evil.py": b""}),
        "its archive holds no agent",
    ),
}
CRASHING = {
    "no import": (newer(__main__="import nonsense_that_is_nowhere\n"), "it ended 3 times"),
    "no Python": (newer(settings="this is no Python\n"), "it ended 3 times"),
    "ends at once": (newer(__main__="def main():\n    return 0\n"), "it ended 3 times"),
}


@pytest.mark.parametrize("bad", [BROKEN, CRASHING], ids=["broken", "crashing"])
def test_one_that_is_no_good_is_given_up(
    make_unit: MakeUnit, manager: Manager, bad: Mapping[str, tuple[bytes, str]]
) -> None:
    unit = make_unit()
    unit.start()
    manager.heartbeats(1)
    for order, (archive, why) in bad.items():
        sha256 = manager.offer(archive, offered_at=order)
        told = manager.failure(order)
        assert told["sha256"] == sha256
        assert why in told["reason"]
        go_on(manager)
    assert len(manager.fetches()) == len(bad)
    assert [path.name for path in unit.state.iterdir()] == ["releases.json"]


def test_one_with_another_checksum_is_not_run(make_unit: MakeUnit, manager: Manager) -> None:
    unit = make_unit()
    unit.start()
    manager.offer(newer(), sha256="0" * 64)
    assert "checksum" in manager.failure()["reason"]
    go_on(manager)
    assert (unit.starts, len(manager.fetches())) == (1, 1)


@pytest.mark.parametrize("source", [HANGS, BUSY], ids=["hangs", "is busy"])
def test_one_that_starts_but_does_not_beat_is_ended_and_given_up(
    make_unit: MakeUnit, manager: Manager, source: str
) -> None:
    unit = make_unit(trial_seconds=1)
    unit.start()
    manager.heartbeats(1)
    manager.offer(newer(__main__=source))
    assert manager.failure()["reason"] == "no heartbeat of it was accepted within 1 s"
    unit.says("action=release_silent")
    go_on(manager)
    assert len(manager.fetches()) == 1


def test_the_same_one_is_tried_again_by_another_order(make_unit: MakeUnit, manager: Manager) -> None:
    unit = make_unit()
    unit.start()
    archive = newer()
    sha256 = manager.offer(b"damaged on its way", sha256=hashlib.sha256(archive).hexdigest())
    manager.failure()
    go_on(manager)
    assert manager.offer(archive, offered_at="2026-11-25T13:00:00+00:00") == sha256
    assert "agentUpgradeFailed" not in manager.registration_with(agentSha256=sha256).body["metadata"]


def test_an_agent_that_is_killed_while_it_fetches_fetches_again(make_unit: MakeUnit, manager: Manager) -> None:
    unit = make_unit()
    unit.start()
    manager.ready["agent"].append(HANG)
    sha256 = manager.offer(newer())
    assert manager.requests.await_some(lambda request: request.method == "GET")
    unit.kill()
    manager.registration_with(agentSha256=sha256)


def test_an_agent_that_is_killed_on_trial_is_tried_further(make_unit: MakeUnit, manager: Manager) -> None:
    unit = make_unit()
    unit.start()
    manager.heartbeats(1)
    offering = manager.offering(newer())
    manager.ready["heartbeat"].extend([offering, HANG])
    eventually(lambda: unit.starts == 2)
    eventually(lambda: not manager.ready["heartbeat"])
    unit.kill()
    manager.registration_with(agentSha256=offering.document["agent"]["sha256"])
    assert unit.starts == 3


def test_a_manager_that_fails_meanwhile_is_asked_again(make_unit: MakeUnit, manager: Manager) -> None:
    unit = make_unit()
    unit.start()
    not_upgraded_yet = failing(404, "AGENT_NOT_FOUND")
    manager.ready["agent"].extend([failing(503, "DATABASE_UNAVAILABLE"), not_upgraded_yet, DROP, DROP])
    sha256 = manager.offer(newer())
    assert "agentUpgradeFailed" not in manager.registration_with(agentSha256=sha256).body["metadata"]


@needs_root
def test_with_a_full_disk_the_old_one_goes_on(make_unit: MakeUnit, manager: Manager) -> None:
    unit = make_unit()
    full = 'mount -t tmpfs -o size=32k tmpfs "$1" && { cat /dev/zero >"$1/filler" 2>/dev/null; shift; exec "$@"; }'
    unit.start(under=("unshare", "--mount", "sh", "-c", full, "sh", str(unit.state)))
    manager.heartbeats(1)
    manager.offer(newer())
    assert "No space left on device" in manager.failure()["reason"]
    go_on(manager)
    assert (unit.starts, len(manager.fetches())) == (1, 1)


@pytest.mark.parametrize("lost", ["*.tar.gz", "releases.json"])
def test_a_release_that_was_damaged_or_removed_gives_way_to_the_installed_one(
    make_unit: MakeUnit, manager: Manager, lost: str
) -> None:
    unit = make_unit()
    unit.start()
    manager.registration_with(agentSha256=manager.offer(newer()))
    manager.offered = {}
    [path] = unit.state.glob(lost)
    path.write_bytes(b"damaged")
    unit.kill()

    def is_older(request: Request) -> bool:
        return bool((request.body or {}).get("metadata", {}).get("agentVersion") == __version__)

    assert len(manager.requests.await_some(is_older, count=2)) == 2


def test_what_is_installed_anew_wins(make_unit: MakeUnit, manager: Manager) -> None:
    unit = make_unit()
    unit.start()
    manager.registration_with(agentSha256=manager.offer(newer()))
    manager.offered = {}
    installed = unit.install(newer(__init__='__version__ = "10.0.0"\n'))
    unit.kill()
    manager.registration_with(agentSha256=installed, agentVersion="10.0.0")


def test_an_agent_that_nobody_launched_says_that_it_cannot(manager: Manager, start: Callable[..., Agent]) -> None:
    agent = start(apiUrl=manager.url)
    manager.offer(agent_archive())
    assert "skyagent.launch" in manager.failure()["reason"]
    go_on(manager)
    assert manager.fetches() == []
    assert len(agent.says("action=upgrade_failed")) == 1


def test_offers_that_make_no_sense_are_passed_over(manager: Manager, start: Callable[..., Agent]) -> None:
    good = {"sha256": "a" * 64, "version": "1", "size": 5, "offeredAt": ""}
    wrong = ["newest", {}, {**good, "sha256": "../../../etc/passwd"}, {**good, "size": 10**9}, {**good, "size": True}]
    document = manager.accepting().document
    manager.ready["heartbeat"].extend(Answer(200, {**document, "agent": offer}) for offer in wrong)
    start(apiUrl=manager.url)
    manager.heartbeats(len(wrong) + 1)
    assert (len(manager.requests.all()), manager.fetches()) == (len(wrong) + 2, [])
