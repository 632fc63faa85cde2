"""A host on which the web panel's own agent was or is at work: its token lies open to everybody."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from skyctl.installer import render, uninstaller
from tests.installer.test_script import INVITATION, SCRIPT
from tests.support.scratch_host import ScratchHost, need_scratch_host

OTHER = "11111111-2222-3333-4444-555555555555"
OURS = "opt/skypanel-worker"
PANEL = "https://panel.example/api"
UNIT = "etc/systemd/system/skypanel-worker.service"
# What the agent does, as far as it shows that a program is one.
PROGRAM = "post(`${config.apiUrl}/api/workers/${config.workerId}/heartbeat`, metrics)\n"


@pytest.fixture
def host(tmp_path: Path) -> ScratchHost:
    """A host that has all that it needs."""
    need_scratch_host()
    host = ScratchHost(tmp_path / "host")
    host.add_python()
    host.add_docker()
    return host


def add_panel_agent(
    host: ScratchHost, worker_id: str = INVITATION.worker_id, *, folder: str = OURS, unit: str = UNIT
) -> list[Path]:
    """Put it there as the panel's installer does."""
    config = {"apiUrl": PANEL, "authToken": "open", "workerId": worker_id, "heartbeatInterval": 30}
    start = f"[Service]\nType=simple\nExecStart=/usr/bin/node /{folder}/worker-agent.js\n"
    contents = {
        f"{folder}/config.json": json.dumps(config, indent=2),
        f"{folder}/worker-agent.js": PROGRAM,
        unit: start,
    }
    for name, content in contents.items():
        (host.root / name).parent.mkdir(parents=True, exist_ok=True)
        (host.root / name).write_text(content)
        (host.root / name).chmod(0o644)
    return [host.root / name for name in contents]


def test_uninstalling_takes_away_what_the_panels_installer_left(host: ScratchHost) -> None:
    """As it was found: installed over by a script that let its files lie."""
    assert host.install(SCRIPT).returncode == 0
    unit = (host.root / UNIT).read_text()
    config, program, _ = add_panel_agent(host, OTHER)
    (host.root / UNIT).write_text(unit)
    before = host.files()
    told = host.install(uninstaller(), "--dry-run")
    for file in (config, program):
        assert f"would remove /{OURS}/{file.name} of the web panel's former agent\n" in told.stderr
    assert host.files() == before
    done = host.install(uninstaller())
    assert done.returncode == 0, done.stderr
    for file in (config, program):
        assert f"removed /{OURS}/{file.name} of the web panel's former agent\n" in done.stderr
    for worker_id in (OTHER, INVITATION.worker_id):
        assert f"the manager still lists the worker, until: skyctl workers remove {worker_id}\n" in done.stderr
    assert not (host.root / OURS).exists()


def test_uninstalling_takes_away_the_panels_agent_alone_as_well(host: ScratchHost) -> None:
    before = set(host.files())
    add_panel_agent(host)
    elsewhere = "etc/systemd/system/panel.service"
    add_panel_agent(host, OTHER, folder="srv/panel", unit=elsewhere)
    (host.root / f"{elsewhere}.d").mkdir()
    done = host.install(SCRIPT, "--uninstall")
    assert done.returncode == 0, done.stderr
    assert set(host.files()) - before == {"srv"}
    calls = host.calls()
    for call in ("skypanel-worker", "panel.service"):
        assert f"systemctl disable --now {call}" in calls
    assert calls.index("systemctl daemon-reload") > calls.index("systemctl disable --now panel.service")


def test_what_only_has_such_a_name_stays(host: ScratchHost) -> None:
    """Another program, another configuration, another unit; and what somebody has put beside ours."""
    for folder, program, config in (
        ("srv/queue", "while (true) work()\n", '{"apiUrl": "https://queue.example", "workerId": 7}'),
        (OURS, "console.log('/api/workers')\n", '{"authToken": "x"}'),
    ):
        add_panel_agent(host, folder=folder, unit=f"etc/systemd/system/{folder.replace('/', '-')}.service")
        (host.root / folder / "worker-agent.js").write_text(program)
        (host.root / folder / "config.json").write_text(config)
    (host.root / OURS / ".notes").touch(mode=0o600)
    (host.root / "usr/local/bin").mkdir(parents=True)
    before = host.files()
    assert host.install(SCRIPT).returncode == 0
    done = host.install(SCRIPT, "--uninstall")
    assert done.returncode == 0, done.stderr
    assert _modes(host.files()) == _modes(before)
    for name in ("config.json", "worker-agent.js", ".notes"):
        assert f"/{OURS}/{name} stays: it is not of the agent\n" in done.stderr
    assert "panel's" not in done.stderr


def _modes(files: dict[str, tuple[int, int, int]]) -> dict[str, int]:
    return {name: mode for name, (_, mode, _) in files.items()}


def test_the_same_worker_is_taken_over_from_the_panels_agent(host: ScratchHost) -> None:
    config, program, unit = add_panel_agent(host, INVITATION.worker_id.upper())
    other = "etc/systemd/system/panel.service"
    add_panel_agent(host, folder="srv/panel", unit=other)
    before = host.files()
    told = host.install(SCRIPT, "--dry-run")
    gone = (f"/{OURS}/config.json", f"/{OURS}/worker-agent.js", "/srv/panel/config.json", f"/{other}")
    assert (told.returncode, host.files()) == (0, before)
    for path in gone:
        assert f"would remove {path} of the web panel's former agent\n" in told.stderr
    host.calls()
    done = host.install(SCRIPT)
    assert done.returncode == 0, done.stderr
    for path in gone:
        assert f"removed {path} of the web panel's former agent\n" in done.stderr
        assert not (host.root / path[1:]).exists()
    assert not config.exists() and not program.exists()
    assert "worker-agent.js" not in unit.read_text()
    calls = host.calls()
    assert calls.index("systemctl disable --now panel.service") < calls.index("systemctl restart skypanel-worker")


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_another_worker_by_the_panels_agent_is_not_overwritten(host: ScratchHost, arguments: tuple[str, ...]) -> None:
    add_panel_agent(host, OTHER)
    before = host.files()
    done = host.install(SCRIPT, *arguments)
    assert (done.returncode, host.files()) == (27, before)
    *_, error, hint = done.stderr.splitlines()
    assert error == (f"error W27: this host is another worker already: {OTHER} of {PANEL} (the web panel's agent)")
    for remedy in (f"install-script --worker {OTHER};", f"skyctl workers remove {OTHER}", "--replace"):
        assert remedy in hint


def test_who_asks_for_it_replaces_the_worker_of_the_panels_agent(host: ScratchHost) -> None:
    script = render(replace(INVITATION, worker_id=OTHER))
    config, *_ = add_panel_agent(host)
    done = host.install(script, "--replace")
    assert done.returncode == 0, done.stderr
    assert f"until: skyctl workers remove {INVITATION.worker_id}\n" in done.stderr
    assert not config.exists()


def test_what_is_left_of_an_agent_that_nothing_starts_holds_nobody_up(host: ScratchHost) -> None:
    *_, unit = add_panel_agent(host, OTHER)
    unit.unlink()
    done = host.install(SCRIPT)
    assert done.returncode == 0, done.stderr
    assert f"removed /{OURS}/config.json of the web panel's former agent\n" in done.stderr


def test_an_agent_that_cannot_be_stopped_is_not_taken_away(host: ScratchHost) -> None:
    add_panel_agent(host, folder="srv/panel", unit="etc/systemd/system/panel.service")
    (host.root / "disable-fails").touch()
    done = host.install(SCRIPT)
    assert done.returncode == 64
    assert "error W64: panel.service cannot be stopped\nhint: see: systemctl status panel.service\n" in done.stderr
    assert (host.root / "srv/panel/config.json").exists()
