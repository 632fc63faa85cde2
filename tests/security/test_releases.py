"""Who decides which code runs on a host: nobody who has only the path to the manager, its `serve`, or its database."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from skyagent import __version__
from skyctl.host.release_key import ReleaseKey
from skyctl.rules.releases import statement
from tests.agent.conftest import MakeUnit
from tests.agent.peers import TOKEN, Answer, Manager
from tests.agent.unit import Unit, newer

# This machine by an address that is none of loopback's: what is sent there may come from a network.
ELSEWHERE = "0.0.0.0"
UNSIGNED = "it is not signed by the key that is pinned on this host"
LOWER = "which has run here"


@pytest.fixture
def other_key(tmp_path: Path) -> ReleaseKey:
    key = ReleaseKey(tmp_path / "other/release.key")
    key.make()
    return key


def sha256_of(archive: bytes) -> str:
    return hashlib.sha256(archive).hexdigest()


def test_nothing_but_what_the_pinned_key_has_signed_is_fetched(
    make_unit: MakeUnit, manager: Manager, release_key: ReleaseKey, other_key: ReleaseKey
) -> None:
    """S: the manager of this test holds all that `serve` holds: its key, its tokens, the database's offers."""
    good, evil = newer(), newer(clock="raise SystemExit('evil')\n")
    of_good = release_key.sign(statement("9.9.9", sha256_of(good), len(good)))
    as_other = release_key.sign(statement("9.9.8", sha256_of(evil), len(evil)))
    forged = other_key.sign(statement("9.9.9", sha256_of(evil), len(evil)))
    unit = make_unit()
    unit.start()
    manager.heartbeats(1)
    for order, signature in enumerate(("", "nonsense", forged, of_good, as_other, "A" * 88, "é")):
        manager.offer(evil, offered_at=str(order), signature=signature)
        assert manager.failure(str(order))["reason"] == UNSIGNED
    assert (manager.fetches(), unit.starts) == ([], 1)
    manager.offer(evil, offered_at="another archive", sha256=sha256_of(good), size=len(good), signature=of_good)
    assert manager.failure("another archive")["reason"] == "its checksum is not the one that was offered"
    assert unit.starts == 1
    manager.registration_with(agentSha256=manager.offer(good, offered_at="good"), agentVersion="9.9.9")


def test_an_older_release_is_not_taken_again_however_well_it_is_signed(make_unit: MakeUnit, manager: Manager) -> None:
    """S: what was signed once, with a fault that is known by now, is signed for ever."""
    unit = make_unit()
    unit.start()
    manager.heartbeats(1)
    manager.offer(newer(__init__='__version__ = "0.1.9"\n'), offered_at="lower", version="0.1.9")
    assert LOWER in manager.failure("lower")["reason"]
    manager.registration_with(agentSha256=manager.offer(newer()), agentVersion="9.9.9")
    before = unit.starts
    manager.offer(newer(__init__='__version__ = "9.9"\n'), offered_at="replayed", version="9.9")
    assert manager.failure("replayed")["reason"] == f"its version 9.9 is lower than 9.9.9, {LOWER}"
    assert (unit.starts, len(manager.fetches())) == (before, 1)


@pytest.mark.parametrize("place", ["taken", "trial"])
def test_the_launcher_runs_nothing_else_whoever_has_put_it_there(
    make_unit: MakeUnit, manager: Manager, other_key: ReleaseKey, place: str
) -> None:
    """A deceived agent, or a fault of one, has written it: the launcher is the installed one, and asks again."""
    evil = newer()
    sha256, signature = sha256_of(evil), other_key.sign(statement("9.9.9", sha256_of(evil), len(evil)))
    unit = make_unit()
    put(unit, evil, place, version="9.9.9", signature=signature)
    unit.start()
    unit.says(f"{sha256}: {UNSIGNED}")
    assert manager.registrations(1)[0].body["metadata"]["agentVersion"] == __version__


def put(unit: Unit, archive: bytes, place: str, **signed: str) -> None:
    """Write a release into the state folder of a host as one that was taken over, or that is on trial."""
    sha256, installed = sha256_of(archive), unit.install_sha256
    trial = {"sha256": sha256, "offered_at": "x", "began": 1e12, "starts": 0, **signed} if place == "trial" else None
    taken = {"taken": sha256, **{f"taken_{name}": value for name, value in signed.items()}}
    state = {"installed": installed, "taken": "", "failed": None, "trial": trial} | (taken if not trial else {})
    (unit.state / "releases.json").write_text(json.dumps(state))
    (unit.state / f"{sha256}.tar.gz").write_bytes(archive)


def test_a_key_that_is_pinned_anew_ends_what_the_one_before_has_signed(
    make_unit: MakeUnit, manager: Manager, other_key: ReleaseKey
) -> None:
    unit = make_unit()
    unit.start()
    sha256 = manager.offer(newer())
    manager.registration_with(agentSha256=sha256)
    manager.offered = {}
    unit.pin(other_key.public())
    unit.kill()
    unit.says(f"action=release_refused reason='{sha256}: {UNSIGNED}'")
    manager.registration_with(releaseKey=other_key.public(), agentVersion=__version__)


@pytest.mark.parametrize("pinned", ["", "nonsense"])
def test_a_host_that_has_pinned_no_key_takes_nothing(make_unit: MakeUnit, manager: Manager, pinned: str) -> None:
    unit = make_unit()
    unit.pin(pinned)
    unit.start()
    manager.offer(newer())
    assert manager.failure()["reason"].startswith("no key of releases is pinned on this host")
    assert "releaseKey" not in manager.registrations(1)[0].body["metadata"]
    assert (manager.fetches(), unit.starts) == ([], 1)


def test_over_plain_http_from_elsewhere_neither_upgrade_nor_token_is_taken(
    tmp_path: Path, write_config: Callable[..., Path], release_key: ReleaseKey
) -> None:
    """N: whoever is on the path may say whatever the manager may, and replay what it has signed."""
    with Manager(address=ELSEWHERE) as manager:
        manager.release_key = release_key
        manager.offer(newer())
        manager.offered = {**manager.offered, "newToken": "of.somebody.else"}
        unit = Unit(tmp_path, write_config(apiUrl=manager.url, insecure=True), release_key)
        try:
            unit.start()
            beats = manager.heartbeats(4)
            (said,) = manager.registrations(1)
        finally:
            unit.end()
        assert {beat.headers["Authorization"] for beat in beats} == {f"Bearer {TOKEN}"}
        assert (manager.fetches(), unit.starts) == ([], 1)
    assert list(unit.state.iterdir()) == []
    assert said.body["metadata"]["plainHttp"] is True
    assert not {"takesTokens", "releaseKey", "agentUpgradeFailed"} & said.body["metadata"].keys()
    assert len([line for line in unit.lines() if "action=plain_http" in line]) == 1


def test_a_redirection_is_not_followed(make_unit: MakeUnit, manager: Manager) -> None:
    """N: neither the offer, nor the archive, nor the token goes another way than the one that was verified."""
    with Manager(address=ELSEWHERE) as other:
        there = {"Location": f"{other.url}/api/agent/x"}
        manager.ready["heartbeat"].extend(Answer(status, {}, there) for status in (301, 307, 308))
        manager.ready["agent"].append(Answer(302, {}, there))
        unit = make_unit()
        unit.start()
        sha256 = manager.offer(newer())
        manager.registration_with(agentSha256=sha256)
        assert other.requests.all() == []
