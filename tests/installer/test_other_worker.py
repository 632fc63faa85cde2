"""The install script on a host that is a worker already: this one, or another."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from skyctl.installer import render
from tests.installer.test_script import INVITATION, SCRIPT
from tests.support.scratch_host import ScratchHost, need_scratch_host

FORMER = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def host(tmp_path: Path) -> ScratchHost:
    """A host that has all that it needs."""
    need_scratch_host()
    host = ScratchHost(tmp_path / "host")
    host.add_python()
    host.add_docker()
    return host


@pytest.fixture
def other(host: ScratchHost) -> ScratchHost:
    """The same, another worker that its manager hears."""
    script = render(replace(INVITATION, worker_id=FORMER, api_url="https://elsewhere.example"))
    assert host.install(script).returncode == 0
    return host


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_another_worker_is_not_overwritten(other: ScratchHost, arguments: tuple[str, ...]) -> None:
    before = other.files()
    done = other.install(SCRIPT, *arguments)
    assert (done.returncode, other.files()) == (27, before)
    *_, error, hint = done.stderr.splitlines()
    assert error.startswith(
        f"error W27: this host is another worker already: {FORMER} of https://elsewhere.example (acc"
    )
    for remedy in ("run it there", f"skyctl workers remove {FORMER}", "--replace", "skypanel-worker-uninstall"):
        assert remedy in hint


@pytest.mark.parametrize("config", ['{"authToken":"x"}', "{}", "garbage"])
def test_a_configuration_that_names_no_worker_is_not_overwritten(host: ScratchHost, config: str) -> None:
    file = host.root / "etc/skypanel-worker/config.json"
    file.parent.mkdir()
    file.write_text(config)
    done = host.install(SCRIPT)
    assert (done.returncode, file.read_text()) == (27, config)
    assert "one that /etc/skypanel-worker/config.json does not name" in done.stderr


def test_who_asks_for_it_replaces_the_other_worker(other: ScratchHost) -> None:
    before = other.files()
    told = other.install(SCRIPT, "--replace", "--dry-run")
    assert f"would make this host worker {INVITATION.worker_id}, and no longer {FORMER}" in told.stderr
    assert (told.returncode, other.files()) == (0, before)
    done = other.install(SCRIPT, "--replace")
    assert done.returncode == 0, done.stderr
    assert (
        f"the manager still lists the worker that this host was, until: skyctl workers remove {FORMER}" in done.stderr
    )
    written = json.loads((other.root / "etc/skypanel-worker/config.json").read_text())
    assert written["workerId"] == INVITATION.worker_id


def test_a_worker_that_its_manager_refuses_is_replaced_without_asking(other: ScratchHost) -> None:
    (other.root / "agent-says").write_text("StatusText=refused failures=1 reason='it was removed'\n")
    assert other.install(SCRIPT).returncode == 60, "it is the stand-in's only answer, so the new worker gets it too"
    written = json.loads((other.root / "etc/skypanel-worker/config.json").read_text())
    assert written["workerId"] == INVITATION.worker_id


@pytest.mark.parametrize("form", ['{{"workerId":"{}"}}', '{{\n  "workerId" : "{}"\n}}'])
def test_the_same_worker_is_recognised_however_its_configuration_is_written(host: ScratchHost, form: str) -> None:
    file = host.root / "etc/skypanel-worker/config.json"
    file.parent.mkdir()
    file.write_text(form.format(INVITATION.worker_id.upper()))
    host.answer("used")
    done = host.install(render(replace(INVITATION, token="another")))
    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text())["authToken"] == "another"
